//! The `attention_pattern` example as a program, and the trained head that it shows on
//! every back end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use npyz::WriterBuilder;
use sdpa::{Backend, MatrixMut, MatrixRef};

const WORDS: [&str; 8] = ["a", "fluffy", "blue", "creature", "roamed", "the", "verdant", "forest"];

/// The built example. `cargo test --test all` builds no examples, and a
/// full `cargo test` may run under any target directory, so that cargo is asked to build
/// it, where it then lies is in cargo's answer, and it is never an old one.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--example", "attention_pattern", "--message-format=json"]);
        build.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join(".."));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        String::from_utf8(built.stdout)
            .unwrap()
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find(|message| message["target"]["name"] == "attention_pattern")
            .and_then(|message| message["executable"].as_str().map(PathBuf::from))
            .unwrap()
    })
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

    /// Runs, succeeds, and returns what was printed.
    fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && complaint.is_empty(), "{args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and fails as promised: status 2, one line, and no file made or changed.
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

/// Numbers in [−2, 2] without a pattern.
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

/// The lines below the heading that starts so, as words.
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
    // A checkout may have put carriage returns in.
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

/// Tags that nest, quoted attributes, known entities, nothing that XML 1.0 forbids.
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
fn own_arrays_go_through() {
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

#[test]
fn order_and_width_of_the_numbers_do_not_matter() {
    let folder = Folder::with_arrays("order");
    folder.print(&own(&["--out", "out.npy"]));
    let plain = folder.read("out.npy");

    let k = numbers(3 * 4, 2);
    let across: Vec<f32> = (0..12).map(|i| k[i % 3 * 4 + i / 3]).collect();
    folder.write("k.npy", &npy_in(npyz::Order::Fortran, &across, &[3, 4]));
    let wide: Vec<f64> = numbers(5 * 4, 1).into_iter().map(f64::from).collect();
    folder.write("q.npy", &npy(&wide, &[5, 4]));
    folder.print(&own(&["--out", "out.npy"]));
    assert!(folder.read("out.npy") == plain);
}

#[test]
fn large_grids_stay_bounded() {
    let folder = Folder::new("large");
    for name in ["q.npy", "k.npy", "v.npy"] {
        folder.write(name, &npy(&numbers(300 * 8, 1), &[300, 8]));
    }
    let text = folder.print(&own(&["--out", "out.npy"]));
    assert!(text.contains("(300 × 300 is too large to print)"));
    assert!(text.len() < 2000);
    folder.refuse(&own(&["--svg", "p.svg", "--out", "out.npy"]), "at most 64");
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
    let huge = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 4)}\n";
    let cases: [(&str, Vec<u8>, &str); 19] = [
        ("empty", vec![], "not a .npy file"),
        ("magic", text("NUMPY", "NUMPi"), "not a .npy file"),
        ("header", text("'shape'", "'share'"), "not a .npy file"),
        ("half a header", good[..40].to_vec(), "not a .npy file"),
        ("cut off", good[..good.len() - 1].to_vec(), "cut off or damaged"),
        ("too long", [&good[..], &[0; 4]].concat(), "cut off or damaged"),
        ("brackets", with_header(&[b'('; 60_000]), "header that is too long"),
        ("huge", with_header(huge), "header that is too long"),
        ("integers", text("<f4", "<i4"), "\"<i4\""),
        ("half precision", text("<f4", "<f2"), "\"<f2\""),
        ("one dimension", npy(&numbers(12, 2), &[12]), "[12], not two dimensions"),
        ("three dimensions", npy(&numbers(12, 2), &[3, 2, 2]), "not two dimensions"),
        ("no keys", npy::<f32>(&[], &[0, 4]), "nothing in it"),
        ("no dim", npy::<f32>(&[], &[3, 0]), "nothing in it"),
        ("dim", npy(&numbers(15, 2), &[3, 5]), "5 × 4 and keys are 3 × 5"),
        ("keys", npy(&numbers(16, 2), &[4, 4]), "4 × 4 and values are 3 × 2"),
        ("NaN", with(6, f32::NAN), "NaN in row 1, column 2"),
        ("infinity", with(4, f32::NEG_INFINITY), "-inf in row 1, column 0"),
        ("overflow", npy(&[1e39f64; 12], &[3, 4]), "inf in row 0, column 0"),
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
    refuse(&["--svg", "p.svg"], "the scores overflow");

    // What the command line itself rejects is explained over several lines.
    for args in [vec!["--keys", "k.npy"], vec!["--labels", "a"], vec!["--nonsense"]] {
        assert_eq!(folder.run(&args).status.code(), Some(2), "{args:?}");
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

    // n roundings that pull in no common direction stray by about √n of them, each of
    // 2⁻²⁴ of the result. A score has 384 in the projections and 32 in its own chain. A
    // weight p moves by p (1 − p) ≤ ¼ of what its score moves. An output has 384 in the
    // values and 8 in its chain. Measured: 1.63e-6 of 3.61e-6, 2.5e-7 of 9.0e-7 and
    // 4.3e-7 of 1.45e-6.
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
