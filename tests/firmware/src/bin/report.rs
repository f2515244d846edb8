//! Reads the output of the boards, checks it against the limits, and prints the table.
//!
//! `report RESULTS BOARD…` reads a file `BOARD.txt` per board in the folder; `--operations` prints
//! the names of the operations; `--docs FILE` writes the tables between the markers of the file;
//! `--check FILE` fails if the tables there differ.

#[cfg(target_os = "none")]
compile_error!("for the host");

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path, process::ExitCode};

use firmware::{
    Arena, answers,
    digest::{self, Digest, Values},
    operations::{C_OPERATIONS, OPERATIONS},
};
use sdpa::{Backend, Bf16, F16, I8, KEY_BLOCK, KvCache};

/// The upper limit of a measurement.
struct Limit {
    board: &'static str,
    operation: &'static str,
    what: What,
    most: u64,
    /// The target, if it is missed.
    aim: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Instructions,
    Stack,
    Flash,
}

const fn missed(aim: u64, limit: Limit) -> Limit {
    Limit { aim: Some(aim), ..limit }
}

const fn limit(board: &'static str, operation: &'static str, what: What, most: u64) -> Limit {
    Limit { board, operation, what, most, aim: None }
}

const LIMITS: &[Limit] = &[
    limit("cortex-m4f", "dot", What::Instructions, 3500),
    limit("cortex-m7", "dot", What::Instructions, 3500),
    limit("cortex-m33", "dot", What::Instructions, 3500),
    limit("cortex-m55-mve", "dot", What::Instructions, 1170),
    limit("cortex-m4f-s", "dot", What::Instructions, 3500 * 3 / 2),
    limit("cortex-m4f", "softmax", What::Instructions, 44_000),
    limit("cortex-m7", "softmax", What::Instructions, 44_000),
    limit("cortex-m33", "softmax", What::Instructions, 44_000),
    limit("cortex-m55-mve", "softmax", What::Instructions, 16_000),
    limit("cortex-m4f-s", "softmax", What::Instructions, 60_000),
    // Of 27200, a sixth is the transposition of queries and outputs between rows and tiles, an eighth the
    // weights. The vectors of the M55 are used by the products only, and by part of those.
    limit("cortex-m4f", "attention", What::Instructions, 27_300),
    limit("cortex-m7", "attention", What::Instructions, 27_300),
    limit("cortex-m33", "attention", What::Instructions, 27_300),
    missed(9_000, limit("cortex-m55-mve", "attention", What::Instructions, 17_300)),
    // Tiles of two queries instead of four: a sixth less flash for a fifth more instructions.
    limit("cortex-m4f-s", "attention", What::Instructions, 27_000 * 3 / 2),
    // The aims are 1.25, 1.35 and 1.55 times the cache of floats. Each element takes a conversion and a move from a core
    // register to one of the FPU. F16 moves there and back: assembly cannot return registers of an FPU without doubles. The
    // rest is the rounding of the appended token and, for I8, the scales.
    missed(37_100, limit("cortex-m4f", "attention_cached_f16", What::Instructions, 58_700)),
    missed(40_100, limit("cortex-m4f", "attention_cached_bf16", What::Instructions, 48_200)),
    missed(46_000, limit("cortex-m4f", "attention_cached_i8", What::Instructions, 59_500)),
    limit("cortex-m4f", "attention", What::Stack, 1000),
    limit("cortex-m4f-s", "attention", What::Stack, 1000),
    limit("standalone", "dot", What::Instructions, 3500),
    limit("standalone-s", "dot", What::Instructions, 3500 * 3 / 2),
    limit("standalone-s", "dot", What::Flash, 300),
    limit("standalone", "softmax", What::Instructions, 44_000),
    limit("standalone", "softmax", What::Stack, 96),
    limit("standalone-s", "softmax", What::Instructions, 60_000),
    limit("standalone-s", "softmax", What::Stack, 96),
    limit("standalone-s", "softmax", What::Flash, 900),
    limit("standalone", "attention", What::Instructions, 26_500),
    limit("standalone", "attention", What::Stack, 512),
    limit("standalone", "attention", What::Flash, 7_950),
    limit("standalone-s", "attention", What::Instructions, 38_800),
    limit("standalone-s", "attention", What::Stack, 448),
    limit("standalone-s", "attention", What::Flash, 3 * 1024 + 320),
    limit("standalone", "attention_cached", What::Flash, 8_370),
    limit("standalone", "attention_cached", What::Stack, 480),
    limit("standalone-s", "attention_cached", What::Flash, 3_420),
    limit("standalone-s", "attention_cached", What::Stack, 372),
    limit("standalone", "attention_cached_f16", What::Flash, 11_500),
    limit("standalone", "attention_cached_f16", What::Stack, 584),
    limit("standalone-s", "attention_cached_f16", What::Instructions, 77_000),
    limit("standalone-s", "attention_cached_f16", What::Flash, 5_250),
    limit("standalone-s", "attention_cached_f16", What::Stack, 724),
    limit("standalone", "attention_cached_bf16", What::Flash, 12_350),
    limit("standalone", "attention_cached_bf16", What::Stack, 624),
    limit("standalone-s", "attention_cached_bf16", What::Instructions, 68_700),
    limit("standalone-s", "attention_cached_bf16", What::Flash, 4_700),
    limit("standalone-s", "attention_cached_bf16", What::Stack, 680),
    limit("standalone", "attention_cached_i8", What::Flash, 13_100),
    limit("standalone", "attention_cached_i8", What::Stack, 700),
    limit("standalone-s", "attention_cached_i8", What::Instructions, 82_800),
    limit("standalone-s", "attention_cached_i8", What::Flash, 4_800),
    limit("standalone-s", "attention_cached_i8", What::Stack, 804),
    limit("standalone", "sdpa_attention_plain", What::Flash, 9 * 1024),
    limit("standalone", "sdpa_attention_plain", What::Instructions, 27_300),
    limit("standalone", "sdpa_attention_plain", What::Stack, 576),
    limit("standalone-s", "sdpa_attention_plain", What::Flash, 5 * 1024),
    limit("standalone-s", "sdpa_attention_plain", What::Stack, 576),
    // At most half as many again as at 3.
    limit("standalone-s", "sdpa_attention_plain", What::Instructions, 26_700 * 3 / 2),
    limit("standalone", "sdpa_attention_heads_plain", What::Flash, 13_200),
    limit("standalone", "sdpa_attention_heads_plain", What::Stack, 1000),
    limit("standalone-s", "sdpa_attention_heads_plain", What::Flash, 8_300),
    limit("standalone-s", "sdpa_attention_heads_plain", What::Stack, 1000),
    limit("standalone-s", "sdpa_attention", What::Instructions, 28_000 * 3 / 2),
    limit("standalone", "attention_with_all", What::Flash, 12 * 1024),
    limit("standalone-s", "attention_with_all", What::Flash, 6 * 1024 + 400),
];

/// The costs of CMSIS-DSP and CMSIS-NN in float32, on the same boards and counted in the same way.
const PEERS: &[(&str, [&str; 4])] = &[
    ("`dot`, CMSIS-DSP", ["4108", "4108", "4108", "1046"]),
    ("`softmax`, CMSIS-NN", ["64565", "70704", "61491", "14706"]),
];

/// The boards in the columns of the table.
const COLUMNS: &[(&str, &str)] = &[
    ("cortex-m4f", "M4F"),
    ("cortex-m4f-s", "M4F, `s`"),
    ("cortex-m4f-cpu", "M4F, CPU named"),
    ("cortex-m7", "M7"),
    ("cortex-m7-cpu", "M7, CPU named"),
    ("cortex-m33", "M33"),
    ("cortex-m33-cpu", "M33, CPU named"),
    ("cortex-m55", "M55 without vectors"),
    ("cortex-m55-mve", "M55"),
    ("cortex-m3", "no FPU"),
    ("riscv32imac", "RV32IMAC"),
    ("riscv32imafc", "RV32IMAFC"),
];

/// Boards whose vector unit flushes subnormals: the digests over subnormals are not compared.
const FLUSHES: &[&str] = &["cortex-m55-mve"];

/// The output of one board; for `standalone`, at one opt-level.
#[derive(Default)]
struct Board {
    /// Instructions and bytes of stack.
    costs: BTreeMap<String, (u64, u64)>,
    /// Bytes of flash; `standalone` only.
    flash: BTreeMap<String, u64>,
    /// By back end and name.
    digests: BTreeMap<String, String>,
    answers: Vec<(f64, String)>,
    preempted: Option<u64>,
    /// The number of images that ran to their end.
    done: usize,
}

impl Board {
    fn read(text: &str) -> Self {
        let mut board = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["cost", name, count, stack] => {
                    let cost =
                        (count.parse().unwrap_or(u64::MAX), stack.parse().unwrap_or(u64::MAX));
                    board.costs.insert(name.into(), cost);
                }
                ["flash", name, bytes] => {
                    board.flash.insert(name.into(), bytes.parse().unwrap_or(u64::MAX));
                }
                ["digest", backend, name, digest] => {
                    board.digests.insert(format!("{backend} {name}"), digest.into());
                }
                ["answer", _, part, ..] => {
                    board.answers.push((part.parse().unwrap_or(f64::NAN), line.into()));
                }
                ["preempted", times] => board.preempted = times.parse().ok(),
                ["done"] => board.done += 1,
                _ => {}
            }
        }
        board
    }

    fn get(&self, operation: &str, what: What) -> Option<u64> {
        match what {
            What::Instructions => self.costs.get(operation).map(|cost| cost.0),
            What::Stack => self.costs.get(operation).map(|cost| cost.1),
            What::Flash => self.flash.get(operation).copied(),
        }
    }
}

/// Returns the digests of this machine by name. Both back ends must have the same.
fn host_digests(complaints: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut arena = Box::new(Arena::NEW);
    let mut digests = BTreeMap::new();
    for backend in [Backend::SCALAR, Backend::PORTABLE] {
        let mut add = |name: String, digest: u64| {
            let digest = format!("{digest:016x}");
            let before = digests.insert(name.clone(), digest.clone());
            if before.is_some_and(|before| before != digest) {
                complaints.push(format!("host: {name}: scalar and portable differ"));
            }
        };
        let mut bits = Digest::NEW;
        answers::notebook(backend, &mut bits).expect("shapes agree");
        answers::head(backend, &mut arena, &mut bits).expect("shapes agree");
        add("answers".into(), bits.finish());
        for values in [Values::Normal, Values::Subnormal] {
            for (name, run) in digest::OPERATIONS.into_iter().chain(digest::KEPT) {
                let digest = digest::digest(run, backend, values, &mut arena);
                add(format!("{name}/{values:?}"), digest);
            }
        }
    }
    digests
}

fn check(
    name: &str,
    board: &Board,
    host: &BTreeMap<String, String>,
    complain: &mut impl FnMut(String),
) {
    for (part, line) in &board.answers {
        if part.is_nan() || *part > 1.0 {
            complain(format!("beyond its bound: {line}"));
        }
    }
    if board.answers.len() != 4 {
        complain(format!("{} answers, not 4", board.answers.len()));
    }
    for (case, want) in host {
        match board.digests.get(&format!("scalar {case}")) {
            _ if case.ends_with("Subnormal") && FLUSHES.contains(&name) => {}
            None if case.contains("_kept/") && !name.ends_with("-kept") => {}
            Some(digest) if digest == want => {}
            Some(digest) => complain(format!("{case}: {digest}, on the host {want}")),
            None => complain(format!("{case}: no digest")),
        }
    }
    if name.starts_with("cortex") && board.preempted.is_none_or(|times| times < 100) {
        complain("no call was preempted, or its bits changed".into());
    }
}

/// Parses the output of a board, or of the images of standalone operations, which have `flash`.
fn check_costs(board: &Board, flash: bool, complain: &mut impl FnMut(String)) {
    if board.done != if flash { board.costs.len() } else { 1 } {
        complain("did not run to its end".into());
    }
    let alone = if flash { C_OPERATIONS } else { &[] };
    for name in OPERATIONS.iter().map(|operation| operation.name).chain(alone.iter().copied()) {
        if !board.costs.contains_key(name) {
            complain(format!("{name}: no cost"));
        }
        if flash && !board.flash.contains_key(name) {
            complain(format!("{name}: no size"));
        }
    }
}

/// A cache of 64 tokens, as that of `examples/firmware`.
type Example<E> = KvCache<16, 16, { 64 / KEY_BLOCK }, E>;

/// The element, the bytes of that cache, and the percentage of those of floats that it may take.
const RAM: [(&str, usize, usize); 4] = [
    ("f32", size_of::<Example<f32>>(), 100),
    ("F16", size_of::<Example<F16>>(), 55),
    ("Bf16", size_of::<Example<Bf16>>(), 55),
    ("I8", size_of::<Example<I8>>(), 32),
];

/// Parses the output of standalone operations, after the lines `level 3` and `level s`, as the boards
/// `standalone` and `standalone-s`.
fn standalone(text: &str) -> [(String, Board); 2] {
    [("3", "standalone"), ("s", "standalone-s")].map(|(level, name)| {
        let parts = text.split("level ").filter_map(|part| part.strip_prefix(level));
        (name.into(), Board::read(&parts.collect::<String>()))
    })
}

fn table(boards: &BTreeMap<String, Board>) -> String {
    let mut text = String::from("| instructions |");
    let columns: Vec<_> = COLUMNS.iter().filter(|(name, _)| boards.contains_key(*name)).collect();
    for (_, title) in &columns {
        let _ = write!(text, " {title} |");
    }
    text.push_str(&format!("\n| --- |{}\n", " --- |".repeat(columns.len())));
    let count = |board: &str, name| boards.get(board)?.get(name, What::Instructions);
    for operation in OPERATIONS {
        let _ = write!(text, "| `{}`, {} |", operation.name, operation.shape);
        for (board, _) in &columns {
            let count = count(board, operation.name).map(|count| count.to_string());
            let _ = write!(text, " {} |", count.as_deref().unwrap_or("–"));
        }
        text.push('\n');
    }
    for (name, counts) in PEERS {
        let _ = write!(text, "| {name} |");
        for (board, _) in &columns {
            let index = ["cortex-m4f", "cortex-m7", "cortex-m33", "cortex-m55-mve"]
                .iter()
                .position(|name| name == board);
            let _ = write!(text, " {} |", index.map_or("–", |index| counts[index]));
        }
        text.push('\n');
    }
    text.push_str("\n| alone on the M4F | flash, `s` | flash, 3 | stack, `s` | stack, 3 |");
    text.push_str(" instructions, `s` | instructions, 3 |\n| --- |");
    text.push_str(&format!("{}\n", " --- |".repeat(6)));
    let names = OPERATIONS.iter().map(|operation| operation.name);
    for name in names.chain(C_OPERATIONS.iter().copied()) {
        let in_c = if C_OPERATIONS.contains(&name) { ", in C" } else { "" };
        let _ = write!(text, "| `{name}`{in_c} |");
        for what in [What::Flash, What::Stack, What::Instructions] {
            for board in ["standalone-s", "standalone"] {
                let got = boards.get(board).and_then(|board| board.get(name, what));
                let _ = write!(text, " {} |", got.map_or("–".into(), |got| got.to_string()));
            }
        }
        text.push('\n');
    }
    text.push_str("| `dot`, CMSIS-DSP | – | 200 | – | – | – | 4108 |\n");
    text.push_str("| `softmax`, CMSIS-NN | – | 2168 | – | 44 | – | 64565 |\n");
    text.push_str("\n| a cache of 64 tokens of 16 columns | bytes of RAM |\n| --- | --- |\n");
    for (element, bytes, _) in RAM {
        let _ = writeln!(text, "| of `{element}` | {bytes} |");
    }
    text
}

/// The stack of calls that are compiled in the crate of an application: by name, for two sizes, at each of
/// [`LEVELS`].
#[derive(Default)]
struct Frames(BTreeMap<String, [[Option<u64>; 2]; LEVELS.len()]>);

const LEVELS: [&str; 6] = ["0", "1", "2", "3", "s", "z"];

/// The limit of each call in bytes of stack. At opt-level 0 both sizes must take the same instead.
const FRAME: u64 = 512;

impl Frames {
    fn read(text: &str) -> Self {
        let mut frames = Self::default();
        let mut level = 0;
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["level", name] => level = LEVELS.iter().position(|l| *l == name).expect("a level"),
                ["frame", size, name, bytes] => {
                    let at = usize::from(size == "large");
                    frames.0.entry(name.into()).or_default()[level][at] = bytes.parse().ok();
                }
                _ => {}
            }
        }
        frames
    }

    fn check(&self, complain: &mut impl FnMut(String)) {
        if self.0.is_empty() {
            complain("no frame was measured".into());
        }
        for (name, levels) in &self.0 {
            for (level, bytes) in LEVELS.iter().zip(levels) {
                match *bytes {
                    [Some(small), Some(large)] if *level == "0" => {
                        // A caller with a frame of more than 4 KiB saves one more register.
                        if large > small + 8 {
                            complain(format!("{name} at 0: {large}, of small sizes {small}"));
                        }
                    }
                    [Some(_), Some(large)] if large <= FRAME => {}
                    [Some(_), Some(large)] => {
                        complain(format!("{name} at {level}: {large} is above the limit {FRAME}"));
                    }
                    _ => complain(format!("{name} at {level} did not run to its end")),
                }
            }
        }
    }

    fn table(&self) -> String {
        let mut text = String::from("\n| bytes of stack, at opt-level |");
        LEVELS.iter().for_each(|level| text.push_str(&format!(" {level} |")));
        text.push_str(&format!("\n| --- |{}\n", " --- |".repeat(LEVELS.len())));
        for (name, levels) in &self.0 {
            let _ = write!(text, "| `{name}` |");
            for [_, large] in levels {
                let _ = write!(text, " {} |", large.map_or("–".into(), |bytes| bytes.to_string()));
            }
            text.push('\n');
        }
        text
    }
}

fn over_limits(boards: &BTreeMap<String, Board>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (element, bytes, most) in RAM {
        if 100 * bytes > most * RAM[0].1 {
            complaints.push(format!("the cache of {element} takes {bytes} bytes of RAM"));
        }
    }
    for limit in LIMITS {
        let Some(board) = boards.get(limit.board) else { continue };
        let got = board.get(limit.operation, limit.what);
        let Limit { board, operation, what, most, aim } = limit;
        if let (Some(aim), Some(got)) = (aim, got) {
            println!("MISSED: {board}: {operation}: {what:?} {got}, the aim is {aim}");
        }
        match got {
            Some(got) if got <= *most => println!("{board}: {operation}: {what:?} {got} of {most}"),
            Some(got) => {
                complaints.push(format!(
                    "{board}: {operation}: {what:?} {got} is above the limit {most}"
                ));
            }
            None => complaints.push(format!("{board}: {operation}: {what:?} was not measured")),
        }
    }
    complaints
}

const BEGIN: &str = "<!-- firmware table: tests/firmware/run.sh --docs -->\n";
const END: &str = "<!-- end of the firmware table -->";

/// Splits `text` into the parts before, between and after the markers.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (between, behind) = rest.split_once(END)?;
    Some((before, between, behind))
}

/// Whether two tables agree, numbers within 5 %: the path of the build folder changes the code, by 2 % of
/// `scores` and 12 bytes of stack.
fn agree(a: &str, b: &str) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.split('|').collect(), b.split('|').collect());
    let near = |a: f64, b: f64| (a - b).abs() <= 0.05 * a.max(b);
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a.trim().parse(), b.trim().parse()) {
            (Ok(a), Ok(b)) => near(a, b),
            _ => *a == b,
        })
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    let (mut write, mut compare) = (None, None);
    while let Some(option) = arguments.next_if(|argument| argument.starts_with("--")) {
        let file = arguments.next();
        match option.as_str() {
            "--docs" => write = file,
            "--check" => compare = file,
            "--operations" => {
                OPERATIONS.iter().for_each(|operation| println!("{}", operation.name));
                C_OPERATIONS.iter().for_each(|name| println!("{name}"));
                return ExitCode::SUCCESS;
            }
            _ => panic!("no such option: {option}"),
        }
    }
    let folder = arguments.next().expect("a folder");
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap_or_default();

    let mut complaints = Vec::new();
    let host = host_digests(&mut complaints);
    let (mut boards, mut frames) = (BTreeMap::new(), String::new());
    for name in arguments {
        let text = read(&format!("{name}.txt"));
        if name == "standalone" {
            boards.extend(standalone(&text));
            continue;
        }
        if name == "frames" {
            let read = Frames::read(&text);
            read.check(&mut |complaint| complaints.push(format!("frames: {complaint}")));
            frames = read.table();
            continue;
        }
        let board = Board::read(&text);
        check(&name, &board, &host, &mut |complaint| {
            complaints.push(format!("{name}: {complaint}"))
        });
        boards.insert(name, board);
    }
    for (name, board) in &boards {
        check_costs(board, name.starts_with("standalone"), &mut |complaint| {
            complaints.push(format!("{name}: {complaint}"))
        });
    }
    let table = table(&boards) + &frames;
    println!("\n{table}");
    complaints.extend(over_limits(&boards));

    if let Some(file) = write {
        let text = fs::read_to_string(&file).expect("the file of --docs");
        let (before, _, behind) = split(&text).expect("both markers");
        fs::write(&file, format!("{before}{BEGIN}{table}{END}{behind}"))
            .expect("the file of --docs");
    }
    if let Some(file) = compare {
        let text = fs::read_to_string(&file).expect("the file of --check");
        if split(&text).is_none_or(|(_, between, _)| !agree(between, &table)) {
            complaints.push(format!("{file} has another table: tests/firmware/run.sh --docs"));
        }
    }
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
