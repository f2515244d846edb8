//! `decode IMAGE LOG LIB`: decodes the log of an image, compares each value with its expected text,
//! and fails if a public type of `lib.rs` has no value in the log.

use std::{collections::BTreeSet, env, error::Error, fs};

use defmt_decoder::{DecodeError, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let [image, log, lib] = &paths[..] else { return Err("decode IMAGE LOG LIB".into()) };
    let lines = decode(&fs::read(image)?, &fs::read(log)?)?;
    let lib = fs::read_to_string(lib)?;
    let mut absent = public_types(&lib);
    absent.remove("Element"); // a trait
    for three in lines.chunks(3) {
        let [of, got, want] = three else { return Err("the log has no end".into()) };
        if got != want {
            return Err(format!("{of} formats as {got}, not as {want}").into());
        }
        println!("{of}: {got}");
        absent.remove(of.split('<').next().unwrap_or_default());
    }
    if !absent.is_empty() {
        return Err(format!("no value is logged of {absent:?}").into());
    }
    Ok(())
}

fn decode(image: &[u8], log: &[u8]) -> Result<Vec<String>, Box<dyn Error>> {
    let table = Table::parse(image)?.ok_or("the image has no table of defmt's")?;
    let mut decoder = table.new_stream_decoder();
    decoder.received(log);
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => lines.push(frame.display_message().to_string()),
            Err(DecodeError::UnexpectedEof) => return Ok(lines),
            Err(DecodeError::Malformed) => return Err("a frame is malformed".into()),
        }
    }
}

/// Returns the names in `pub use` in upper camel case: types, without constants.
fn public_types(lib: &str) -> BTreeSet<&str> {
    // What is hidden from the docs is split off with the line before it.
    let lib = lib.split("#[doc(hidden)]\npub use ");
    let uses = lib.flat_map(|text| text.split("\npub use ").skip(1));
    let uses = uses.filter_map(|text| text.split(';').next());
    uses.flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|name| name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase))
        .collect()
}
