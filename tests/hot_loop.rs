//! The `hot_loop` example as a program: its arguments, its answers and what it prints.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use sdpa::Backend;

const SLICES: [&str; 3] = ["dot", "softmax", "softmax_in_place"];

const MATRICES: [&str; 12] = [
    "softmax_rows",
    "softmax_rows_in_place",
    "softmax_columns",
    "softmax_columns_in_place",
    "project",
    "scores",
    "weighted_sum",
    "rotate",
    "attention",
    "attention_causal",
    "attention_cached",
    "pattern",
];

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| crate::examples::build("hot_loop"))
}

fn run(args: &str) -> Output {
    Command::new(program()).args(args.split_whitespace()).output().unwrap()
}

/// Runs the example, which must succeed, and returns its output.
fn print(args: &str) -> String {
    let output = run(args);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && complaint.is_empty(), "{args}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the example, which must fail with status 2 and a message that has `because` in it.
fn refuse(args: &str, because: &str) {
    let output = run(args);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args}: {complaint}");
    assert!(complaint.contains(because), "{args}: {complaint}");
    assert!(!complaint.contains("panicked"), "{args}: {complaint}");
    assert!(output.stdout.is_empty(), "{args}");
}

#[test]
fn bad_arguments_are_refused() {
    refuse("", "--kernel");
    refuse("--kernel attentoin", "[possible values: dot, softmax");
    refuse("--kernel dot --backend mmx", "[possible values: scalar");
    refuse("--kernel scores --shape 8x8", "one size, or three");
    refuse("--kernel scores --shape 8x8x8x8", "one size, or three");
    refuse("--kernel scores --shape 8x-8x8", "'-8' is no size");
    refuse("--kernel scores --shape 8xx8", "'' is no size");
    refuse("--kernel scores --shape 99999999999999999999x8x8", "is no size");
    refuse("--kernel scores --shape 8x0x8", "a size of 0");
    refuse("--kernel scores --shape 64", "takes a shape of three sizes");
    refuse("--kernel dot --shape 8x8x8", "takes slices");
    refuse("--kernel scores --shape 18446744073709551615x2x8", "too large");
    refuse("--kernel attention --shape 8x8x8 --heads 18446744073709551615", "too large");
    refuse("--kernel attention --shape 4096x65536x1", "too large");
    refuse("--kernel attention --heads 0", "no heads");
    refuse("--kernel attention --heads many", "invalid digit");
    refuse("--kernel scores --heads 2", "scores takes no heads");
    refuse("--kernel attention_cached --keys-transposed", "takes no transposed keys");
    refuse("--kernel attention --layout woven", "[possible values: stacked, interleaved]");
    for seconds in ["0", "-1", "inf", "nan", "2e6", "soon"] {
        refuse(&format!("--kernel dot --seconds={seconds}"), "a number of seconds");
    }
    refuse("--kernel dot --calls=-1", "--calls");
    refuse("--kernel dot --calls 1 --csv", "cannot be used with");
    refuse("--kernel dot --backend scalar --all-backends", "cannot be used with");
}

#[test]
fn every_answer_is_right() {
    let shapes = ["1x70x12", "3x5x2", "9x65x17", "40x130x8"];
    for backend in Backend::available().map(Backend::name) {
        for kernel in SLICES {
            let said =
                print(&format!("--kernel {kernel} --shape 77 --backend {backend} --calls 2"));
            assert_eq!(said, format!("2 calls of {kernel} 77 on {backend}\n"));
        }
        for (kernel, shape) in MATRICES.iter().zip(shapes.iter().cycle()) {
            print(&format!("--kernel {kernel} --shape {shape} --backend {backend} --calls 1"));
        }
        for kernel in ["attention", "attention_causal", "attention_cached"] {
            for shape in shapes {
                for layout in ["stacked", "interleaved"] {
                    let heads = format!("--shape {shape} --heads 3 --layout {layout}");
                    let args = format!("--kernel {kernel} --backend {backend} {heads} --calls 1");
                    let said = print(&args);
                    assert!(said.ends_with(&format!(", 3 heads, {layout}\n")), "{said}");
                }
            }
        }
        for kernel in ["scores", "pattern", "attention", "attention_causal --heads 2"] {
            let keys = "--keys-transposed --layout interleaved --calls 1";
            print(&format!("--kernel {kernel} --shape 9x65x17 --backend {backend} {keys}"));
        }
    }
}

#[test]
fn a_wrong_answer_is_found() {
    for kernel in SLICES.iter().chain(&MATRICES) {
        let args = ["--kernel", kernel, "--backend", "scalar", "--calls", "1"];
        let output = Command::new(program()).args(args).env("SDPA_WRONG", "1").output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{kernel}: {complaint}");
        assert!(complaint.contains("WRONG: "), "{kernel}: {complaint}");
        assert!(output.stdout.is_empty(), "{kernel}");
    }
}

#[test]
fn it_measures() {
    let args = "--kernel attention --shape 2x70x8 --heads 2 --backend scalar --seconds 0.02";
    let said = print(args);
    for words in ["2x70x8 on scalar, 2 heads", "right", "ns a call", "GFLOP/s", "GB/s"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let csv = print(&format!("{args} --csv"));
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert_eq!(lines[0].len(), lines[1].len(), "{csv}");
    assert_eq!(lines[1][..6], ["attention", "2x70x8", "2", "stacked", "rows", "scalar"]);
    assert!(lines[1][6].parse::<f64>().unwrap() > 0.0, "{csv}");
}

#[test]
fn all_back_ends_make_a_table() {
    let csv = print("--kernel softmax_rows --shape 8x8x1 --all-backends --csv");
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row[5]).collect();
    assert_eq!(names, Backend::available().map(Backend::name).collect::<Vec<_>>());
    assert_eq!(rows[0][7], "1.000", "{csv}");
    let table = print("--kernel dot --shape 64 --all-backends");
    assert_eq!(table.lines().count(), 2 + names.len(), "{table}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    for args in ["--kernel dot --calls 1", "--kernel dot --shape 64 --all-backends"] {
        let mut child = Command::new(program())
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && complaint.is_empty(), "{args}: {complaint}");
    }
}
