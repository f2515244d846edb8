//! The `attention_pattern` example as a program, and its trained head on every back end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use half::{bf16, f16};
use npyz::WriterBuilder;
use sdpa::{Backend, MatrixMut, MatrixRef};

const WORDS: [&str; 8] = ["a", "fluffy", "blue", "creature", "roamed", "the", "verdant", "forest"];

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| crate::examples::build("attention_pattern"))
}

/// A folder for one test, empty at the start.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("attention_pattern").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(program()).args(args).current_dir(&self.0).output().unwrap()
    }

    /// Runs the example, which must succeed, and returns its output.
    fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && complaint.is_empty(), "{args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the example, which must fail with status 2, one line on stderr, and no file created or changed.
    fn refuse(&self, args: &[&str], because: &str) {
        let before = self.contents();
        let output = self.run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        assert_eq!(complaint.trim_end().lines().count(), 1, "{args:?}: {complaint}");
        assert!(complaint.contains(because), "{args:?}: {complaint}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(self.contents() == before, "{args:?}: files changed");
    }

    /// Runs the example, whose command-line parser must refuse the arguments, in several lines.
    fn misuse(&self, args: &[&str]) {
        let output = self.run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        assert!(complaint.contains("try '--help'"), "{args:?}: {complaint}");
    }

    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap_or_default()))
            .collect();
        files.sort();
        files
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }

    /// Queries 5 × 4, keys 3 × 4 and values 3 × 2 as q.npy, k.npy and v.npy.
    fn with_arrays(name: &str) -> Self {
        let folder = Self::new(name);
        folder.write("q.npy", &npy(&numbers(5 * 4, 1), &[5, 4]));
        folder.write("k.npy", &npy(&numbers(3 * 4, 2), &[3, 4]));
        folder.write("v.npy", &npy(&numbers(3 * 2, 3), &[3, 2]));
        folder
    }
}

const OWN: [&str; 6] = ["--queries", "q.npy", "--keys", "k.npy", "--values", "v.npy"];

fn own<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&OWN, more].concat()
}

/// Pseudo-random numbers in [−2, 2].
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

fn npy<T: npyz::AutoSerialize>(data: &[T], shape: &[u64]) -> Vec<u8> {
    npy_in(npyz::Order::C, data, shape)
}

fn npy_in<T: npyz::AutoSerialize>(order: npyz::Order, data: &[T], shape: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = npyz::WriteOptions::new().default_dtype().order(order).shape(shape);
    let mut writer = options.writer(&mut bytes).begin_nd().unwrap();
    writer.extend(data).unwrap();
    writer.finish().unwrap();
    bytes
}

fn from_npy<T: npyz::Deserialize>(bytes: &[u8], shape: &[u64]) -> Vec<T> {
    let file = npyz::NpyFile::new(bytes).unwrap();
    assert_eq!((file.shape(), file.order()), (shape, npyz::Order::C));
    file.into_vec().unwrap()
}

/// Returns the words of each line below the heading that starts with `heading`.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let body = text.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let rows = body.take_while(|line| !line.is_empty());
    rows.map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

fn expected(name: &str, shape: &[u64]) -> Vec<f64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/minilm-l2h1");
    from_npy(&fs::read(folder.join(name)).unwrap(), shape)
}

#[test]
fn prints_the_labelled_grids() {
    let text = Folder::new("prints").print(&[]);
    assert!(text.contains("scale 1/√32 = 0.1768"));
    for (heading, file) in [("Scores,", "scores"), ("Pattern,", "pattern")] {
        let grid = table(&text, heading);
        assert_eq!(grid[0][1..], WORDS);
        let expected = expected(&format!("expected_{file}.f64.npy"), &[8, 8]);
        for (key, row) in grid[1..].iter().enumerate() {
            assert_eq!(row[0], WORDS[key]);
            for (query, cell) in row[1..].iter().enumerate() {
                assert_eq!(*cell, format!("{:.3}", expected[key * 8 + query]));
            }
        }
    }
    let pattern = table(&text, "Pattern,");
    let weight = |key: &str, query: &str| {
        let place = |word| 1 + WORDS.iter().position(|w| *w == word).unwrap();
        pattern[place(key)][place(query)].as_str()
    };
    assert_eq!(weight("fluffy", "creature"), "0.549");
    assert_eq!(weight("blue", "creature"), "0.225");
    assert_eq!(weight("verdant", "forest"), "0.407");
}

#[test]
fn causal_hides_later_keys() {
    let folder = Folder::new("causal");
    let text = folder.print(&["--causal", "--svg", "causal.svg"]);
    let scores = table(&text, "Scores,");
    let pattern = table(&text, "Pattern,");
    for query in 0..8 {
        let mut sum = 0.0;
        for key in 0..8 {
            let (score, weight) = (&scores[key + 1][query + 1], &pattern[key + 1][query + 1]);
            assert_eq!(score == "-∞", key > query);
            assert_eq!(weight == "0", key > query);
            sum += weight.parse::<f64>().unwrap();
        }
        assert!((sum - 1.0).abs() < 0.005);
    }
    let picture = String::from_utf8(folder.read("causal.svg")).unwrap();
    assert_eq!(picture.matches("class=\"weight\"").count(), 8 * 9 / 2);
    assert_eq!(picture.matches("fill=\"#efece4\"").count(), 8 * 7 / 2);
}

#[test]
fn draws_the_picture_in_the_readme() {
    let folder = Folder::new("picture");
    folder.print(&["--svg", "pattern.svg"]);
    let picture = String::from_utf8(folder.read("pattern.svg")).unwrap();
    check_xml(&picture);
    assert_eq!(picture.matches("class=\"weight\"").count(), 64);
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/attention_pattern.svg");
    // git may have converted line ends to CRLF.
    let stored = fs::read_to_string(stored).unwrap().replace("\r\n", "\n");
    assert!(
        picture == stored,
        "out of date: cargo run --example attention_pattern -- --svg examples/attention_pattern.svg"
    );
}

#[test]
fn labels_cannot_break_the_picture_or_the_table() {
    let folder = Folder::with_arrays("labels");
    folder.write("q.npy", &npy(&numbers(3 * 4, 1), &[3, 4]));
    let labels = "--labels=a<b&\"c'>]]>,größer als alles andere zusammen,\u{1b}[31m\u{ffff}";
    let text = folder.print(&own(&[labels, "--svg", "p.svg"]));
    check_xml(&String::from_utf8(folder.read("p.svg")).unwrap());
    assert!(text.contains("größer als …") && !text.contains('\u{1b}'));
    let head = text.lines().find(|line| line.starts_with("key\\query")).unwrap();
    assert!(head.ends_with("\u{fffd}[31m\u{fffd}"), "{head}");
}

/// Checks that tags nest, attributes are quoted, entities are known, and XML 1.0 allows each character.
fn check_xml(text: &str) {
    let forbidden = |c: char| (c < ' ' && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
    assert!(!text.contains(forbidden));
    for entity in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "apos;", "quot;"];
        assert!(known.iter().any(|name| entity.starts_with(name)), "&{entity:.9}");
    }
    let mut open = Vec::new();
    for part in text.trim().split('<').skip(1) {
        let (tag, content) = part.split_once('>').unwrap();
        assert!(!content.contains('>'), "{content}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
            continue;
        }
        let attributes = tag.trim_end_matches('/');
        assert!(attributes.matches('"').count() % 2 == 0, "{tag}");
        if !tag.ends_with('/') {
            open.push(attributes.split(' ').next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// Attention in plain f64.
fn attention(q: &[f32], k: &[f32], v: &[f32], dim: usize, width: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let mut output = Vec::new();
    for query in q.chunks(dim) {
        let weights = k.chunks(dim).map(|key| (dot(query, key) / (dim as f64).sqrt()).exp());
        let weights: Vec<_> = weights.collect();
        let sum: f64 = weights.iter().sum();
        output.extend((0..width).map(|col| {
            let terms = v.chunks(width).zip(&weights);
            terms.map(|(value, weight)| weight / sum * f64::from(value[col])).sum::<f64>()
        }));
    }
    output
}

#[test]
fn own_arrays_are_attended() {
    let folder = Folder::with_arrays("own");
    let text = folder.print(&own(&["--labels", "x,y,z", "--out", "out.npy", "--svg", "p.svg"]));
    assert_eq!(table(&text, "Pattern,")[0][1..], ["q0", "q1", "q2", "q3", "q4"]);
    assert_eq!(table(&text, "Pattern,")[3][0], "z");
    let output: Vec<f32> = from_npy(&folder.read("out.npy"), &[5, 2]);
    let (q, k, v) = (numbers(5 * 4, 1), numbers(3 * 4, 2), numbers(3 * 2, 3));
    for (got, expected) in output.iter().zip(attention(&q, &k, &v, 4, 2)) {
        assert!((f64::from(*got) - expected).abs() < 4e-7, "{got} {expected}");
    }
    let picture = String::from_utf8(folder.read("p.svg")).unwrap();
    check_xml(&picture);
    assert_eq!(picture.matches("class=\"weight\"").count(), 15);
    assert_eq!(folder.contents().len(), 5, "temporary files are left");
}

/// A file as `numpy.save` writes it, from the bytes of the elements.
fn numpy_file<const N: usize>(
    descr: &str,
    fortran: bool,
    shape: &[u64],
    data: &[[u8; N]],
) -> Vec<u8> {
    let sizes: Vec<_> = shape.iter().map(u64::to_string).collect();
    let fortran = if fortran { "True" } else { "False" };
    let shape = sizes.join(", ");
    let dict = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape}), }}");
    let text = format!("{dict:<117}\n");
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], text.as_bytes(), data.as_flattened()].concat()
}

/// Converts row-major to column-major.
fn column_major<T: Copy>(data: &[T], rows: usize) -> Vec<T> {
    let cols = data.len() / rows;
    (0..data.len()).map(|i| data[i % rows * cols + i / rows]).collect()
}

#[test]
fn bfloat16_is_what_numpy_and_ml_dtypes_write() {
    // numpy 2.4.6 and ml_dtypes 0.6.0: numpy.save(file, numpy.arange(6).reshape(2, 3)
    // .astype(ml_dtypes.bfloat16)). numpy.load gives the dtype |V2, and numpy.save writes that.
    let written = b"\x93NUMPY\x01\x00v\x00{'descr': '<V2', 'fortran_order': False, \
        'shape': (2, 3), }                                                          \n\
        \x00\x00\x80?\x00@@@\x80@\xa0@";
    let data: Vec<_> = (0..6u8).map(|i| bf16::from_f32(f32::from(i)).to_le_bytes()).collect();
    assert_eq!(numpy_file("<V2", false, &[2, 3], &data), written);

    let folder = Folder::new("bfloat16");
    folder.write("a.npy", written);
    folder.write("b.npy", &npy(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]));
    let of = |name| {
        folder.print(&["--queries", name, "--keys", name, "--values", name, "--out", "out.npy"])
    };
    assert_eq!(of("a.npy"), of("b.npy"));
}

/// Numbers that `file` encodes after rounding, in either order of the axes, must give the result of the same
/// numbers as float32.
fn same_as_f32(
    name: &str,
    rounded: impl Fn(f32) -> f32,
    file: impl Fn(bool, &[u64; 2], &[f32]) -> Vec<u8>,
) {
    let folder = Folder::new(&format!("dtype {name}"));
    let out = || (folder.print(&own(&["--out", "out.npy"])), folder.read("out.npy"));
    let arrays = [("q.npy", [5, 4], 1), ("k.npy", [3, 4], 2), ("v.npy", [3, 2], 3)];
    let arrays = arrays.map(|(name, shape, seed)| {
        let count = (shape[0] * shape[1]) as usize;
        let data: Vec<f32> = numbers(count, seed).into_iter().map(&rounded).collect();
        (name, shape, data)
    });

    for (name, shape, data) in &arrays {
        folder.write(name, &npy(data, shape));
    }
    let expected = out();
    for (name, shape, data) in &arrays {
        folder.write(name, &file(false, shape, data));
    }
    assert!(out() == expected, "{name}");
    for (name, shape, data) in &arrays {
        folder.write(name, &file(true, shape, &column_major(data, shape[0] as usize)));
    }
    assert!(out() == expected, "{name} in Fortran order");
}

#[test]
fn every_dtype_in_every_order_gives_what_float32_gives() {
    macro_rules! dtype {
        ($descr:literal, $rounded:expr, $bytes:expr) => {
            same_as_f32($descr, $rounded, |fortran, shape, data| {
                let data: Vec<_> = data.iter().map(|&x| $bytes(x)).collect();
                numpy_file($descr, fortran, shape, &data)
            })
        };
    }
    let to_f16 = |x| f16::from_f32(x).to_f32();
    let to_bf16 = |x| bf16::from_f32(x).to_f32();
    let same = |x| x;
    dtype!("<f2", to_f16, |x| f16::from_f32(x).to_le_bytes());
    dtype!(">f2", to_f16, |x| f16::from_f32(x).to_be_bytes());
    dtype!("<V2", to_bf16, |x| bf16::from_f32(x).to_le_bytes());
    dtype!("|V2", to_bf16, |x| bf16::from_f32(x).to_le_bytes());
    dtype!(">V2", to_bf16, |x| bf16::from_f32(x).to_be_bytes());
    dtype!("<f4", same, f32::to_le_bytes);
    dtype!(">f4", same, f32::to_be_bytes);
    // A float64 is rounded to the nearest float32.
    let beside = |x: f32| f64::from(x) * (1.0 + f64::from(f32::EPSILON) / 8.0);
    dtype!("<f8", same, |x| beside(x).to_le_bytes());
    dtype!(">f8", same, |x| beside(x).to_be_bytes());
}

/// Writes arrays of 2 × 6 query heads and 2 × `shared` KV heads, in either order, and the matrices of one
/// head as separate files.
fn with_heads(name: &str, shared: usize, batch: usize, head: usize) -> Folder {
    let folder = Folder::new(name);
    for (name, heads, rows, cols) in [("q", 6, 5, 4), ("k", shared, 3, 4), ("v", shared, 3, 2)] {
        let size = rows * cols;
        let all = numbers(2 * heads * size, name.as_bytes()[0].into());
        let shape = [2, heads as u64, rows as u64, cols as u64];
        folder.write(&format!("{name}4.npy"), &npy(&all, &shape));
        let place = |i: usize| [i % 2, i / 2 % heads, i / 2 / heads % rows, i / 2 / heads / rows];
        let reversed: Vec<f32> = (0..all.len())
            .map(place)
            .map(|[b, h, r, c]| all[((b * heads + h) * rows + r) * cols + c])
            .collect();
        folder.write(&format!("{name}f.npy"), &npy_in(npyz::Order::Fortran, &reversed, &shape));

        let of_batch = &all[batch * heads * size..][..heads * size];
        folder.write(&format!("{name}3.npy"), &npy(of_batch, &shape[1..]));
        let one = &of_batch[head / (6 / heads) * size..][..size];
        folder.write(&format!("{name}2.npy"), &npy(one, &shape[2..]));
        folder.write(&format!("{name}1.npy"), &npy(one, &[1, 1, shape[2], shape[3]]));
    }
    folder
}

fn of_kind<'a>(kinds: [&'a str; 3], more: &[&'a str]) -> Vec<&'a str> {
    [&["--queries", kinds[0], "--keys", kinds[1], "--values", kinds[2]], more].concat()
}

const FOUR: [&str; 3] = ["q4.npy", "k4.npy", "v4.npy"];
const FORTRAN: [&str; 3] = ["qf.npy", "kf.npy", "vf.npy"];
const THREE: [&str; 3] = ["q3.npy", "k3.npy", "v3.npy"];
const TWO: [&str; 3] = ["q2.npy", "k2.npy", "v2.npy"];
const ONES: [&str; 3] = ["q1.npy", "k1.npy", "v1.npy"];

#[test]
fn heads_are_picked_and_shared() {
    for (name, shared, batch, head) in [
        ("first", 6, 0, 0),
        ("last", 6, 1, 5),
        ("middle", 6, 1, 2),
        ("shared", 2, 1, 4),
        ("one", 1, 0, 3),
    ] {
        let folder = with_heads(&format!("heads {name}"), shared, batch, head);
        let output = |kinds, more: &[&str]| {
            folder.print(&of_kind(kinds, &[more, &["--out", "out.npy"]].concat()));
            folder.read("out.npy")
        };
        let (batch, head) = (&*batch.to_string(), &*head.to_string());
        let expected = output(TWO, &[]);
        assert!(output(ONES, &[]) == expected, "{name}");
        assert!(output(THREE, &["--head", head]) == expected, "{name}");
        assert!(output(FOUR, &["--head", head, "--batch", batch]) == expected, "{name}");
        assert!(output(FORTRAN, &["--head", head, "--batch", batch]) == expected, "{name}");
        // With --batch the first of three dimensions is the batch; here its size equals the number of heads.
        if shared == 6 {
            assert!(output(THREE, &["--batch", head]) == expected, "{name}");
        }
        let text = folder.print(&of_kind(FOUR, &["--head", head, "--batch", batch]));
        assert!(text.starts_with(&format!("Attention pattern, batch {batch}, head {head}\n")));
    }
}

#[test]
fn ambiguous_and_absent_heads_are_refused() {
    let folder = with_heads("no head", 2, 0, 0);
    let refuse = |kinds, more: &[&str], because| {
        let more = [more, &["--svg", "p.svg", "--out", "out.npy"]].concat();
        folder.refuse(&of_kind(kinds, &more), because);
    };
    refuse(FOUR, &[], "\"q4.npy\" has more than one batch: pick one of 2 with --batch");
    refuse(FOUR, &["--batch", "1"], "\"q4.npy\" has more than one head: pick one of 6 with --head");
    refuse(
        FOUR,
        &["--batch", "2", "--head", "0"],
        "\"q4.npy\" has no batch 2: --batch is at most 1",
    );
    refuse(FOUR, &["--batch", "1", "--head", "6"], "\"q4.npy\" has no head 6: --head is at most 5");
    refuse(THREE, &[], "\"q3.npy\" has shape [6, 5, 4]: pick one matrix with --head or --batch");
    refuse(THREE, &["--batch", "0", "--head", "0"], "--batch or --head, not both");
    // As batches these are 6 and 2.
    refuse(THREE, &["--batch", "4"], "\"k3.npy\" has no batch 4: --batch is at most 1");
    refuse(TWO, &["--head", "0"], "\"q2.npy\" has shape [5, 4]: two dimensions leave");
    refuse(["q4.npy", "k2.npy", "v4.npy"], &["--batch", "0", "--head", "0"], "\"k2.npy\"");

    let heads = |name: &str, count: u64, size: u64| {
        folder.write(name, &npy(&numbers((count * 3 * size) as usize, 7), &[count, 3, size]));
    };
    heads("k3.npy", 4, 4);
    refuse(THREE, &["--head", "5"], "\"k3.npy\" has shape [4, 3, 4]: 6 query heads cannot share 4");
    heads("k3.npy", 3, 4);
    refuse(THREE, &["--head", "5"], "\"k3.npy\" has 3 heads and \"v3.npy\" has 2");

    for args in [vec!["--head", "0"], of_kind(FOUR, &["--head", "-1"])] {
        folder.misuse(&args);
    }
}

#[test]
fn labels_come_from_a_file() {
    let folder = Folder::with_arrays("labels from");
    let rows = |file: &[u8]| {
        folder.write("labels.txt", file);
        let text = folder.print(&own(&["--labels-from", "labels.txt"]));
        let names: Vec<_> = text.lines().skip_while(|line| !line.starts_with("key")).collect();
        [1, 2, 3].map(|row| names[row].chars().take(9).collect::<String>().trim_end().to_string())
    };
    let expected = ["a,b", " Ġthe", "größer"];
    assert_eq!(rows("a,b\n Ġthe\ngrößer\n".as_bytes()), expected);
    assert_eq!(rows("a,b\n Ġthe\ngrößer".as_bytes()), expected);
    assert_eq!(rows("\u{feff}a,b\r\n Ġthe\r\ngrößer\r\n".as_bytes()), expected);
    // An empty line is an empty label, and control characters are replaced.
    assert_eq!(rows(b"\n\x1b[31m\nc\n"), ["", "\u{fffd}[31m", "c"]);

    let refuse = |file: &[u8], because: &str| {
        folder.write("labels.txt", file);
        let more = ["--labels-from", "labels.txt", "--svg", "p.svg", "--out", "out.npy"];
        folder.refuse(&own(&more), because);
    };
    refuse(b"a\nb\n", "\"labels.txt\" holds 2 labels for 3 keys");
    refuse(b"a\nb\nc\n\n", "\"labels.txt\" holds 4 labels for 3 keys");
    refuse(b"", "\"labels.txt\" is empty");
    refuse(b"\xef\xbb\xbf", "\"labels.txt\" is empty");
    refuse(b"a\nb\nna\xefve\n", "\"labels.txt\" is not UTF-8 in line 3");
    // UTF-16, as some editors write it.
    refuse(b"\xff\xfea\0\n\0", "\"labels.txt\" is not UTF-8 in line 1");
    folder.refuse(&own(&["--labels-from", "no.txt", "--svg", "p.svg"]), "cannot read \"no.txt\"");

    // Errors of the command-line parser have several lines.
    let both = own(&["--labels", "a,b,c", "--labels-from", "labels.txt"]);
    for args in [both, vec!["--labels-from", "labels.txt"]] {
        assert_eq!(folder.run(&args).status.code(), Some(2), "{args:?}");
    }
}

/// An image in a picture: its colours in row-major order.
struct Pixels {
    width: usize,
    colours: Vec<[u8; 3]>,
}

/// Returns the images of a picture: scores and pattern.
fn images(picture: &str) -> [Pixels; 2] {
    let mut images = picture.split("data:image/png;base64,").skip(1).map(|rest| {
        let file = STANDARD.decode(rest.split('"').next().unwrap()).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let width = reader.next_frame(&mut bytes).unwrap().width as usize;
        Pixels { width, colours: bytes.as_chunks().0.to_vec() }
    });
    let both = [images.next().unwrap(), images.next().unwrap()];
    assert!(images.next().is_none());
    both
}

/// Returns the colours of the bar with this id, from end to end.
fn bar(picture: &str, id: &str) -> Vec<[f64; 3]> {
    let gradient = picture.split(&format!("<linearGradient id=\"{id}\"")).nth(1).unwrap();
    let stops = gradient.split("</linearGradient>").next().unwrap().split("<stop ").skip(1);
    let stops: Vec<_> = stops.map(|stop| stop.split('"').collect::<Vec<_>>()).collect();
    for (i, stop) in stops.iter().enumerate() {
        let offset: f64 = stop[1].trim_end_matches('%').parse().unwrap();
        assert!((offset - 100.0 * i as f64 / (stops.len() - 1) as f64).abs() < 0.01);
    }
    let channel = |stop: &[&str], i: usize| u8::from_str_radix(&stop[3][i..i + 2], 16).unwrap();
    stops.iter().map(|stop| [1, 3, 5].map(|i| channel(stop, i).into())).collect()
}

/// Returns the distance of a colour from that of the bar at `fraction` of its length.
fn colour_distance(colour: [u8; 3], bar: &[[f64; 3]], fraction: f64) -> f64 {
    let place = fraction.clamp(0.0, 1.0) * (bar.len() - 1) as f64;
    let first = (place as usize).min(bar.len() - 2);
    let part = place - first as f64;
    let differences = [0, 1, 2].map(|i| {
        let expected = bar[first][i] * (1.0 - part) + bar[first + 1][i] * part;
        (f64::from(colour[i]) - expected).abs()
    });
    differences.into_iter().fold(0.0, f64::max)
}

/// Computes the scores and the pattern in plain f64, with a row per key; masked ones are −∞ and 0.
fn grids(q: &[f32], k: &[f32], dim: usize, causal: bool) -> [Vec<f64>; 2] {
    let (keys, queries) = (k.len() / dim, q.len() / dim);
    let mut scores = vec![f64::NEG_INFINITY; keys * queries];
    let mut pattern = vec![0.0; keys * queries];
    for query in 0..queries {
        let visible = if causal { keys.min(query + 1) } else { keys };
        for key in 0..visible {
            let (q, k) = (&q[query * dim..][..dim], &k[key * dim..][..dim]);
            let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
            scores[key * queries + query] = dot / (dim as f64).sqrt();
        }
        let column = |key: usize| key * queries + query;
        let sum: f64 = (0..visible).map(|key| scores[column(key)].exp()).sum();
        for key in 0..visible {
            pattern[column(key)] = scores[column(key)].exp() / sum;
        }
    }
    [scores, pattern]
}

/// Returns the largest element of each block of a grid, in row-major order.
fn block_maxima(grid: &[f64], cols: usize, height: usize, width: usize) -> Vec<Vec<f64>> {
    let rows: Vec<&[f64]> = grid.chunks(cols).collect();
    let largest = |block: &[&[f64]], col: usize| {
        let cells = block.iter().flat_map(|row| &row[col..cols.min(col + width)]);
        cells.fold(f64::NEG_INFINITY, |most, &x| most.max(x))
    };
    let row = |block: &[&[f64]]| (0..cols).step_by(width).map(|col| largest(block, col)).collect();
    rows.chunks(height).map(row).collect()
}

/// Queries, keys and values of eight columns.
fn large(folder: &Folder, keys: usize, queries: usize) -> [Vec<f32>; 2] {
    let (q, k) = (numbers(queries * 8, 1), numbers(keys * 8, 2));
    folder.write("q.npy", &npy(&q, &[queries as u64, 8]));
    folder.write("k.npy", &npy(&k, &[keys as u64, 8]));
    folder.write("v.npy", &npy(&k, &[keys as u64, 8]));
    [q, k]
}

const MASKED: [u8; 3] = [0xef, 0xec, 0xe4];

#[test]
fn above_64_keys_or_queries_the_picture_is_a_heat_map() {
    // Cells per pixel of the map, and image pixels per pixel of the map.
    for (keys, queries, causal, [height, width], [tall, wide], decades) in [
        (65, 65, false, [1, 1], [8, 8], 3.0),
        (300, 300, true, [1, 1], [2, 2], 4.0),
        (2048, 2048, true, [1, 1], [1, 1], 5.0),
        (100, 8, false, [1, 1], [6, 20], 3.0),
        (1, 65, false, [1, 1], [160, 8], 1.0),
        (2049, 66, false, [2, 1], [1, 3], 5.0),
    ] {
        let name = format!("heat map {keys} {queries}");
        let folder = Folder::new(&name);
        let [q, k] = large(&folder, keys, queries);
        let more: &[&str] =
            if causal { &["--causal", "--svg", "p.svg"] } else { &["--svg", "p.svg"] };
        folder.print(&own(more));
        let picture = String::from_utf8(folder.read("p.svg")).unwrap();
        check_xml(&picture);
        assert_eq!(picture.matches("<circle").count(), 0, "{name}");
        assert!(picture.len() < 8 << 20, "{name}: {} bytes", picture.len());
        assert_eq!(picture.contains(">\nmasked\n<"), causal, "{name}");
        let about = format!("a pixel is the largest of {height} × {width} cells");
        assert_eq!(picture.contains(&about), (height, width) != (1, 1), "{name}");

        let [scores, pattern] =
            grids(&q, &k, 8, causal).map(|grid| block_maxima(&grid, queries, height, width));
        let mut sizes: Vec<f64> =
            scores.iter().flatten().filter(|x| x.is_finite()).map(|x| x.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let end = sizes[sizes.len() * 99 / 100];
        let score_share = |score: f64| 0.5 + 0.5 * score / end;
        let weight_share = |weight: f64| 1.0 + weight.log10() / decades;

        // Half of one of 62 steps, at the steepest part of either bar, and the rounding.
        let [of_scores, of_pattern] = images(&picture);
        for (image, id, shares, bound) in [
            (of_scores, "scores", &score_share as &dyn Fn(f64) -> f64, 10.0),
            (of_pattern, "weights", &weight_share, 6.0),
        ] {
            let bar = bar(&picture, id);
            let grid = if id == "scores" { &scores } else { &pattern };
            assert_eq!(image.width, grid[0].len() * wide, "{name}");
            assert_eq!(image.colours.len(), grid.len() * tall * image.width, "{name}");
            for (i, &colour) in image.colours.iter().enumerate() {
                let (key, query) = (i / image.width / tall, i % image.width / wide);
                if scores[key][query] == f64::NEG_INFINITY {
                    assert_eq!(colour, MASKED, "{name}: {id}, key {key}, query {query}");
                } else {
                    let colour_distance = colour_distance(colour, &bar, shares(grid[key][query]));
                    assert!(
                        colour_distance < bound,
                        "{name}: {id}, key {key}, query {query}: {colour_distance}"
                    );
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_heat_map_of_2048_tokens_takes_a_few_hundred_megabytes() {
    let folder = Folder::new("memory");
    large(&folder, 2048, 2048);
    let within = |kilobytes: &str| {
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", kilobytes]).arg(program());
        limited.args(own(&["--causal", "--svg", "p.svg"])).current_dir(&folder.0);
        limited.output().unwrap().status.success()
    };
    assert!(within("300000"));
    assert!(!within("30000"), "the limit is none");
}

#[test]
fn the_axes_of_a_heat_map_name_tokens() {
    let folder = Folder::new("axes");
    large(&folder, 300, 300);
    let labels: String = (0..300).map(|i| format!("<{i}>\n")).collect();
    folder.write("labels.txt", labels.as_bytes());
    let text = folder.print(&own(&["--svg", "p.svg", "--labels-from", "labels.txt"]));
    let picture = String::from_utf8(folder.read("p.svg")).unwrap();
    check_xml(&picture);
    for i in (0..300).step_by(20) {
        // Keys and queries of both maps.
        assert_eq!(picture.matches(&format!("\n{i} &lt;{i}&gt;\n")).count(), 4);
    }
    assert_eq!(picture.matches("&lt;").count(), 4 * 15);
    assert!(text.contains("\n290 <290>  "));
    let head = text.lines().find(|line| line.starts_with("key\\query")).unwrap();
    assert_eq!(head, "key\\query  0 <0>           80 <80>         160 <160>       240 <240>");
}

#[test]
fn the_terminal_shows_large_grids_in_squares() {
    for (keys, queries, causal) in
        [(30, 30, false), (65, 65, true), (300, 300, false), (2048, 2048, true), (300, 5, false)]
    {
        let name = format!("squares {keys} {queries}");
        let folder = Folder::new(&name);
        let [q, k] = large(&folder, keys, queries);
        let text = folder.print(&own(if causal { &["--causal"] } else { &[] }));
        let [height, width] = [keys, queries].map(|cells| cells.div_ceil(32));
        let about = format!("A square is the largest of {height} × {width} cells:\n");
        let count = if (height, width) == (1, 1) { 0 } else { 2 };
        assert_eq!(text.matches(&about).count(), count, "{name}");

        let maxima =
            grids(&q, &k, 8, causal).map(|grid| block_maxima(&grid, queries, height, width));
        let [scores, pattern] = &maxima;
        for (heading, grid) in [("Scores,", scores), ("Pattern,", pattern)] {
            let section = text.split(&format!("\n{heading}")).nth(1).unwrap();
            let legend = section.lines().find(|line| line.starts_with('·')).unwrap();
            assert_eq!(legend.ends_with("   blank: masked"), causal, "{name}");
            let steps: Vec<(char, f64)> = legend
                .split("   ")
                .filter(|part| part.contains("from"))
                .map(|part| part.split_once(" from ").unwrap())
                .map(|(shade, from)| (shade.chars().next().unwrap(), from.parse().unwrap()))
                .collect();
            assert_eq!(steps.iter().map(|step| step.0).collect::<String>(), "░▒▓█", "{name}");

            let body = section.lines().skip_while(|line| !line.starts_with("key\\query")).skip(1);
            let rows: Vec<&str> = body.take_while(|line| !line.is_empty()).collect();
            assert_eq!(rows.len(), grid.len(), "{name}");
            let mut seen = std::collections::HashSet::new();
            for (row, line) in rows.iter().enumerate() {
                assert!(line.chars().count() <= 80, "{line}");
                assert!(line.starts_with(&format!("k{} ", row * height)), "{line}");
                let squares = line.chars().skip("key\\query  ".len()).chain([' '; 64]);
                let squares: Vec<char> = squares.take(2 * grid[0].len()).collect();
                for (col, pair) in squares.chunks(2).enumerate() {
                    let value = grid[row][col];
                    let near =
                        steps.iter().any(|(_, from)| (value - from).abs() < 1e-5 * from.abs());
                    let shade = match steps.iter().rev().find(|(_, from)| value >= *from) {
                        _ if scores[row][col] == f64::NEG_INFINITY => ' ',
                        Some((shade, _)) => *shade,
                        None => '·',
                    };
                    assert!(pair == [shade; 2] || near, "{name}: {heading} {row} {col}: {pair:?}");
                    seen.insert(shade);
                }
            }
            assert!(seen.len() >= 4, "{name}: {heading} has only {seen:?}");
        }
        let output = table(&text, "Output,");
        assert_eq!(output.len(), 1 + if queries > 40 { 8 } else { queries }, "{name}");
    }
}

#[test]
fn bad_arrays_are_refused() {
    let good = Folder::with_arrays("bad").read("k.npy");
    let text = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    let with = |at: usize, x: f32| {
        let mut numbers = numbers(3 * 4, 2);
        numbers[at] = x;
        npy(&numbers, &[3, 4])
    };
    let with_header = |text: &[u8]| {
        let length = (text.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], text].concat()
    };
    let record = b"{'descr': [('x', '<f2')], 'fortran_order': False, 'shape': (3, 4)}\n";
    let huge = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4)}\n";
    let cases: [(&str, Vec<u8>, &str); 23] = [
        ("empty", vec![], "not a .npy file"),
        ("magic", text("NUMPY", "NUMPi"), "not a .npy file"),
        ("header", text("'shape'", "'share'"), "not a .npy file"),
        ("half a header", good[..40].to_vec(), "not a .npy file"),
        ("cut off", good[..good.len() - 1].to_vec(), "cut off or damaged"),
        ("too long", [&good[..], &[0; 4]].concat(), "cut off or damaged"),
        ("brackets", with_header(&[b'('; 60_000]), "header that is too long"),
        ("huge", with_header(huge), "header that is too long"),
        ("integers", text("<f4", "<i4"), "\"<i4\""),
        ("one byte", text("<f4", "<V1"), "\"<V1\", not float16"),
        ("bytes", text("<f4", "|V4"), "\"|V4\", not float16"),
        ("complex", text("<f4", "<c8"), "\"<c8\", not float16"),
        ("structured", with_header(record), "holds \"[(x, <f2), ]\", not float16"),
        ("cut off halves", text("<f4", "<f2"), "48 bytes of data: cut off or damaged"),
        ("one dimension", npy(&numbers(12, 2), &[12]), "[12]: two, three or four dimensions"),
        (
            "five dimensions",
            npy(&numbers(12, 2), &[1, 1, 1, 3, 4]),
            "two, three or four dimensions",
        ),
        ("no keys", npy::<f32>(&[], &[0, 4]), "nothing in it"),
        ("no dim", npy::<f32>(&[], &[3, 0]), "nothing in it"),
        (
            "dim",
            npy(&numbers(15, 2), &[3, 5]),
            "the queries of \"q.npy\" are 5 × 4 and the keys of \"k.npy\" are 3 × 5: their widths differ",
        ),
        (
            "keys",
            npy(&numbers(16, 2), &[4, 4]),
            "the keys of \"k.npy\" are 4 × 4 and the values of \"v.npy\" are 3 × 2: a value per key",
        ),
        ("NaN", with(6, f32::NAN), "\"k.npy\" holds NaN at [1, 2]"),
        ("infinity", with(4, f32::NEG_INFINITY), "\"k.npy\" holds -inf at [1, 0]"),
        ("overflow", npy(&[1e39f64; 12], &[3, 4]), "\"k.npy\" holds inf at [0, 0]"),
    ];
    for (name, bytes, because) in cases {
        let folder = Folder::with_arrays(&format!("bad {name}"));
        folder.write("k.npy", &bytes);
        folder.refuse(&own(&["--svg", "p.svg", "--out", "out.npy"]), because);
    }
}

#[test]
fn other_mistakes_are_refused() {
    let folder = Folder::with_arrays("mistakes");
    let refuse = |more: &[&str], because| folder.refuse(&own(more), because);
    refuse(&["--labels", "x,y", "--svg", "p.svg"], "2 labels for 3 keys");
    refuse(&["--svg", "p.svg", "--out", "no/such/folder.npy"], "folder.npy");
    refuse(&["--svg", "p.svg", "--out", "."], "not a regular file");
    refuse(&["--svg", "same", "--out", "./same"], "two outputs");

    fs::rename(folder.0.join("v.npy"), folder.0.join("w.npy")).unwrap();
    refuse(&["--svg", "p.svg"], "cannot read \"v.npy\"");
    folder.write("v.npy", &npy(&[f32::MAX; 6], &[3, 2]));
    folder.write("k.npy", &npy(&[f32::MAX; 12], &[3, 4]));
    refuse(&["--svg", "p.svg"], "the scores of \"q.npy\" and \"k.npy\" overflow float32");

    let model = ["--model", "m", "--layer", "2", "--text", "t"];
    for args in [
        vec!["--keys", "k.npy"],
        vec!["--labels", "a"],
        vec!["--nonsense"],
        model[..4].to_vec(),
        model[2..].to_vec(),
        [&model[..], &["--causal"]].concat(),
        own(&model),
    ] {
        folder.misuse(&args);
    }
}

/// The scores, the pattern and the output of the built-in head.
fn trained_head(backend: Backend) -> [Vec<f32>; 3] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/minilm-l2h1");
    let load = |name: &str, shape: &[u64]| -> Vec<f32> {
        from_npy(&fs::read(folder.join(format!("{name}.npy"))).unwrap(), shape)
    };
    let embeddings = load("embeddings", &[8, 384]);
    let project = |name: &str| {
        let weights = load(&format!("w_{name}"), &[384, 32]);
        let bias = load(&format!("b_{name}"), &[32]);
        let mut out = vec![0.0; 8 * 32];
        let x = MatrixRef::new(&embeddings, 8, 384).unwrap();
        let w = MatrixRef::new(&weights, 384, 32).unwrap();
        let view = MatrixMut::new(&mut out, 8, 32).unwrap();
        backend.project(x, w, Some(&bias), view).unwrap();
        out
    };
    let [queries, keys, values] = ["query", "key", "value"].map(project);
    let [q, k, v] = [&queries, &keys, &values].map(|x| MatrixRef::new(x, 8, 32).unwrap());

    let mut scores = vec![0.0; 64];
    backend.scores(k, q, None, MatrixMut::new(&mut scores, 8, 8).unwrap()).unwrap();
    let mut pattern = vec![0.0; 64];
    let grid = MatrixRef::new(&scores, 8, 8).unwrap();
    backend.softmax_columns(grid, MatrixMut::new(&mut pattern, 8, 8).unwrap()).unwrap();
    let mut output = vec![0.0; 8 * 32];
    let weights = MatrixRef::new(&pattern, 8, 8).unwrap();
    backend.weighted_sum(weights, v, MatrixMut::new(&mut output, 8, 32).unwrap()).unwrap();
    [scores, pattern, output]
}

#[test]
fn every_back_end_agrees_with_float64() {
    let [scores, pattern, output] = [("scores", 8), ("pattern", 8), ("output", 32)]
        .map(|(name, cols)| expected(&format!("expected_{name}.f64.npy"), &[8, cols]));
    let largest = |x: &[f64]| x.iter().fold(0.0, |most: f64, x| most.max(x.abs()));

    // n independent roundings add up to about √n of one, which is 2⁻²⁴ of the result. A score has 384
    // roundings in the projections and 32 in its own chain. The error of a weight p is p (1 − p) ≤ ¼ of
    // that of its score. An output has 384 roundings in the values and 8 in its chain. Measured errors
    // and bounds: 1.63e-6 of 3.61e-6, 2.5e-7 of 9.0e-7 and 4.3e-7 of 1.45e-6.
    let strayed = |roundings: f64, x: &[f64]| roundings.sqrt() * 0.5f64.powi(24) * largest(x);
    let score_bound = strayed(384.0 + 32.0, &scores);
    let bounds = [score_bound, score_bound / 4.0, strayed(384.0 + 8.0, &output)];

    for backend in Backend::available() {
        let got = trained_head(backend);
        for ((got, expected), bound) in got.iter().zip([&scores, &pattern, &output]).zip(bounds) {
            let errors: Vec<_> = got.iter().zip(expected).map(|(&x, y)| f64::from(x) - y).collect();
            let error = largest(&errors);
            println!("{backend:?}: {error:.2e} of {bound:.2e}");
            assert!(error <= bound, "{backend:?}: {error:e} > {bound:e}");
        }
    }
}
