//! Reads what the boards printed, holds it to the limits, and prints the table.
//!
//! `report RESULTS BOARD…` expects a file `BOARD.txt` of each board in the folder, and
//! `flash.txt`; `--operations` prints their names; `--readme FILE` writes the table into the file, between its markers,
//! `--check FILE` fails where another table stands there.

#[cfg(target_os = "none")]
compile_error!("for the host");

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path, process::ExitCode};

use firmware::{
    Arena, answers,
    digest::{self, Digest, Values},
    operations::OPERATIONS,
};
use sdpa::Backend;

/// Nothing measured may be above its limit.
struct Limit {
    board: &'static str,
    operation: &'static str,
    what: What,
    most: u64,
    /// What was aimed at, where that is missed.
    aim: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Instructions,
    Stack,
    /// Of the image of the M4F at the opt-level of the board.
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
    limit("cortex-m4f", "softmax", What::Stack, 96),
    limit("cortex-m4f-s", "dot", What::Flash, 300),
    limit("cortex-m4f-s", "softmax", What::Flash, 900),
    // Of 27000 a sixth is the way of queries and outputs into and out of the tiles' order, an eighth the
    // weights. The vectors of the M55 serve the products alone, and those in part.
    limit("cortex-m4f", "attention", What::Instructions, 27_000),
    limit("cortex-m7", "attention", What::Instructions, 27_000),
    limit("cortex-m33", "attention", What::Instructions, 27_000),
    missed(9_000, limit("cortex-m55-mve", "attention", What::Instructions, 17_150)),
    limit("cortex-m4f-s", "attention", What::Instructions, 32_500),
    missed(512, limit("cortex-m4f", "attention", What::Stack, 1000)),
    missed(3 * 1024, limit("cortex-m4f-s", "attention", What::Flash, 5_180)),
    missed(6 * 1024, limit("cortex-m4f-s", "attention_with_all", What::Flash, 8_220)),
    limit("cortex-m4f", "attention", What::Flash, 8_950),
    limit("cortex-m4f", "attention_with_all", What::Flash, 12 * 1024),
];

/// What others need, on the same boards and counted in the same way: CMSIS-DSP and
/// CMSIS-NN, in float32.
const PEERS: &[(&str, [&str; 4])] = &[
    ("`dot`, CMSIS-DSP", ["4108", "4108", "4108", "1046"]),
    ("`softmax`, CMSIS-NN", ["64565", "70704", "61491", "14706"]),
];

/// The columns of the table: boards.
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

/// Whose vector unit flushes subnormals: the digests over them are not compared.
const FLUSHES: &[&str] = &["cortex-m55-mve"];

/// What one board printed.
#[derive(Default)]
struct Board {
    /// Instructions and bytes of stack.
    costs: BTreeMap<String, (u64, u64)>,
    /// By back end and name.
    digests: BTreeMap<String, String>,
    answers: Vec<(f64, String)>,
    preempted: Option<u64>,
    done: bool,
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
                ["digest", backend, name, digest] => {
                    board.digests.insert(format!("{backend} {name}"), digest.into());
                }
                ["answer", _, part, ..] => {
                    board.answers.push((part.parse().unwrap_or(f64::NAN), line.into()));
                }
                ["preempted", times] => board.preempted = times.parse().ok(),
                ["done"] => board.done = true,
                _ => {}
            }
        }
        board
    }
}

/// The digests of this machine, by name: the same for either back end, or the run has
/// failed.
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
            for (name, run) in digest::OPERATIONS {
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
    if !board.done {
        complain("did not run to its end".into());
    }
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
            Some(digest) if digest == want => {}
            Some(digest) => complain(format!("{case}: {digest}, on the host {want}")),
            None => complain(format!("{case}: no digest")),
        }
    }
    if name.starts_with("cortex") && board.preempted.is_none_or(|times| times < 100) {
        complain("no call was preempted, or its bits changed".into());
    }
    for operation in OPERATIONS {
        if !board.costs.contains_key(operation.name) {
            complain(format!("{}: no cost", operation.name));
        }
    }
}

/// Flash of each operation, at 3 and at s.
type Flash = BTreeMap<String, u64>;

fn table(boards: &BTreeMap<String, Board>, flash: &Flash) -> String {
    let mut text = String::from("| instructions |");
    let columns: Vec<_> = COLUMNS.iter().filter(|(name, _)| boards.contains_key(*name)).collect();
    for (_, title) in &columns {
        let _ = write!(text, " {title} |");
    }
    text.push_str(&format!("\n| --- |{}\n", " --- |".repeat(columns.len())));
    let cost = |board: &str, operation: &str| boards.get(board)?.costs.get(operation).copied();
    for operation in OPERATIONS {
        let _ = write!(text, "| `{}`, {} |", operation.name, operation.shape);
        for (board, _) in &columns {
            let count = cost(board, operation.name).map(|cost| cost.0.to_string());
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
    text.push_str("\n| bytes on the M4F | flash, `s` | flash, 3 | stack, `s` | stack, 3 |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for operation in OPERATIONS {
        let name = operation.name;
        let bytes = |level: &str| {
            flash.get(&format!("{name} {level}")).map_or("–".into(), |bytes| bytes.to_string())
        };
        let stack = |board: &str| cost(board, name).map_or("–".into(), |cost| cost.1.to_string());
        let _ = writeln!(
            text,
            "| `{name}` | {} | {} | {} | {} |",
            bytes("s"),
            bytes("3"),
            stack("cortex-m4f-s"),
            stack("cortex-m4f")
        );
    }
    text.push_str("| `dot`, CMSIS-DSP | – | 200 | – | – |\n");
    text.push_str("| `softmax`, CMSIS-NN | – | 2168 | – | 44 |\n");
    text
}

fn over_limits(boards: &BTreeMap<String, Board>, flash: &Flash) -> Vec<String> {
    let mut complaints = Vec::new();
    for limit in LIMITS {
        let Some(board) = boards.get(limit.board) else { continue };
        let cost = board.costs.get(limit.operation);
        let got = match limit.what {
            What::Instructions => cost.map(|cost| cost.0),
            What::Stack => cost.map(|cost| cost.1),
            What::Flash => {
                let level = if limit.board.ends_with("-s") { "s" } else { "3" };
                flash.get(&format!("{} {level}", limit.operation)).copied()
            }
        };
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

const BEGIN: &str = "<!-- firmware table: tests/firmware/run.sh --readme -->\n";
const END: &str = "<!-- end of the firmware table -->";

/// What stands in `text` before, between and behind the markers.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (between, behind) = rest.split_once(END)?;
    Some((before, between, behind))
}

/// Whether two tables say the same, numbers up to 5 %: the folder that is built in
/// shows in the code, by 2 % of `scores` and 12 bytes of stack.
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
            "--readme" => write = file,
            "--check" => compare = file,
            "--operations" => {
                OPERATIONS.iter().for_each(|operation| println!("{}", operation.name));
                return ExitCode::SUCCESS;
            }
            _ => panic!("no such option: {option}"),
        }
    }
    let folder = arguments.next().expect("a folder");
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap_or_default();

    let mut complaints = Vec::new();
    let host = host_digests(&mut complaints);
    let mut boards = BTreeMap::new();
    for name in arguments {
        let board = Board::read(&read(&format!("{name}.txt")));
        check(&name, &board, &host, &mut |complaint| {
            complaints.push(format!("{name}: {complaint}"))
        });
        boards.insert(name, board);
    }
    let flash: Flash = read("flash.txt")
        .lines()
        .filter_map(|line| {
            let (name, bytes) = line.rsplit_once(' ')?;
            Some((name.to_string(), bytes.parse().ok()?))
        })
        .collect();
    let table = table(&boards, &flash);
    println!("\n{table}");
    complaints.extend(over_limits(&boards, &flash));

    if let Some(file) = write {
        let text = fs::read_to_string(&file).expect("the file of --readme");
        let (before, _, behind) = split(&text).expect("both markers");
        fs::write(&file, format!("{before}{BEGIN}{table}{END}{behind}"))
            .expect("the file of --readme");
    }
    if let Some(file) = compare {
        let text = fs::read_to_string(&file).expect("the file of --check");
        if split(&text).is_none_or(|(_, between, _)| !agree(between, &table)) {
            complaints.push(format!("{file} has another table: tests/firmware/run.sh --readme"));
        }
    }
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
