//! Imports go one way: a module of `src/` imports each module that it uses by name, and only lower ones.

use std::{fs, path::Path};

/// The layers from the bottom up: a module may use itself and the modules earlier in this list.
const LAYERS: [&str; 19] = [
    "error",
    "number",
    "matrix",
    "include",
    "simd",
    "kernel",
    "dispatch",
    "narrow",
    "elements",
    "dot",
    "project",
    "scores",
    "softmax",
    "weighted_sum",
    "merge",
    "rotate",
    "score_mod",
    "attention",
    "cache",
];

#[test]
fn imports_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    check_folder(&src, &src, &mut files);
    assert!(files > LAYERS.len());
}

fn check_folder(src: &Path, folder: &Path, files: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_folder(src, &path, files);
            continue;
        }
        let inside = path.strip_prefix(src).unwrap().with_extension("");
        let module = inside.iter().next().unwrap().to_str().unwrap();
        // The crate root only re-exports; test modules may import anything.
        let is_test = ["tests", "contract", "exhaustive"].iter().any(|name| inside.ends_with(name));
        if !["lib", "docs"].contains(&module) && !is_test {
            *files += 1;
            let wrong = not_below(module, &fs::read_to_string(&path).unwrap());
            assert_eq!(wrong, Vec::<String>::new(), "{} imports these", path.display());
        }
    }
}

/// Returns the modules that a file in `module` uses although they are not below it.
fn not_below(module: &str, text: &str) -> Vec<String> {
    let (text, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    let layer_of = |name: &str| LAYERS.iter().position(|&layer| layer == name);
    let layer = layer_of(module).unwrap_or_else(|| panic!("{module} is in no layer"));
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    // What a macro names is public, and found where the macro is used.
    let code = code.replace("$crate::", "");
    let mut used = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => used.extend(names_of(list)),
            None => used.push(first_name(rest)),
        }
    }
    used.retain(|name| layer_of(name).is_none_or(|used| used > layer));
    used
}

/// Returns the first name of each item in a list of imports, up to the closing brace.
fn names_of(list: &str) -> Vec<String> {
    let (mut names, mut depth, mut begin) = (Vec::new(), 0, 0);
    for (i, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' | b',' if depth == 0 => {
                names.push(first_name(list[begin..i].trim()));
                begin = i + 1;
                if byte == b'}' {
                    break;
                }
            }
            b'}' => depth -= 1,
            _ => (),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_that_go_up_are_found() {
    assert_eq!(
        not_below("kernel", "use crate::simd::Vector;\nuse crate::matrix::MatrixRef;"),
        [""; 0]
    );
    assert_eq!(not_below("simd", "use crate::kernel::Kernel;"), ["kernel"]);
    assert_eq!(not_below("kernel", "use crate::MatrixRef;"), ["MatrixRef"]);
    let list = "use crate::{\n    dispatch::{self, Backend},\n    error::Error,\n    Matrix,\n};";
    assert_eq!(not_below("matrix", list), ["dispatch", "Matrix"]);
    assert_eq!(not_below("attention", "fn f() { crate::cache::g() }"), ["cache"]);
}
