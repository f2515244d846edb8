//! The labels of the keys and of the queries.

use std::{fs, path::Path};

/// A label per key, or per query.
#[derive(Clone)]
pub(crate) struct Labels {
    texts: Vec<String>,
    /// Whether the user gave them; otherwise a label is only an index.
    given: bool,
}

impl Labels {
    /// Numbered labels: `k0`, `k1` and so on.
    fn numbered(letter: char, count: usize) -> Self {
        Self { texts: (0..count).map(|i| format!("{letter}{i}")).collect(), given: false }
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns the label with its index in front, for axes that do not show all labels.
    pub(crate) fn with_position(&self, i: usize) -> String {
        match self.given {
            true => format!("{i} {}", self.texts[i]),
            false => self.texts[i].clone(),
        }
    }
}

/// A label per line. Spaces belong to the label, as in the tokens of many models.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        format!("{path:?} is not UTF-8 in line {line}")
    })?;
    // Some editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    if text.is_empty() {
        return Err(format!("{path:?} is empty: it holds no labels"));
    }
    // Removes carriage returns before line feeds.
    Ok(text.lines().map(str::to_string).collect())
}

/// Returns the labels of `keys` keys and of `queries` queries.
///
/// Given labels name the keys, and the queries too when there are as many.
pub(crate) fn labels(
    given: Option<Vec<String>>,
    keys: usize,
    queries: usize,
) -> Result<(Labels, Labels), String> {
    let Some(given) = given else {
        return Ok((Labels::numbered('k', keys), Labels::numbered('q', queries)));
    };
    if given.len() != keys {
        return Err(format!("{} labels for {keys} keys: one per key is needed", given.len()));
    }
    let texts = given.iter().map(|label| printable(label)).collect();
    let of_keys = Labels { texts, given: true };
    let of_queries = if keys == queries { of_keys.clone() } else { Labels::numbered('q', queries) };
    Ok((of_keys, of_queries))
}

/// Replaces control characters, as in terminal codes, and characters that XML forbids by U+FFFD.
pub(crate) fn printable(label: &str) -> String {
    let forbidden = |c: char| c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    label.chars().map(|c| if forbidden(c) { '\u{FFFD}' } else { c }).collect()
}

/// Truncates a label to `max` characters, of which the last is then a `…`.
pub(crate) fn shortened(label: &str, max: usize) -> String {
    match label.chars().count() > max {
        true => label.chars().take(max - 1).chain(['…']).collect(),
        false => label.to_string(),
    }
}
