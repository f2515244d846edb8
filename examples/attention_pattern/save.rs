//! Writes all files or none.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A written file that does not have its name yet; dropped, it is gone.
struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove, and that is no error.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Each file under a temporary name beside its own first, so that what is most likely
/// to fail has succeeded for all of them before the first takes its name.
pub(crate) fn all(files: &[(&Path, Vec<u8>)]) -> Result<(), String> {
    let mut staged: Vec<Staged> = Vec::new();
    for (path, bytes) in files {
        let fail = |error| format!("cannot write {path:?}: {error}");
        let next = stage(path, bytes, staged.len()).map_err(fail)?;
        if staged.iter().any(|other| other.path == next.path) {
            return Err(format!("cannot write {path:?}: two outputs have this name"));
        }
        staged.push(next);
    }
    for file in &staged {
        fs::rename(&file.temporary, &file.path)
            .map_err(|error| format!("cannot write {:?}: {error}", file.path))?;
    }
    Ok(())
}

fn stage(path: &Path, bytes: &[u8], number: usize) -> io::Result<Staged> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if let Ok(old) = fs::metadata(path) {
        // The rename would put a file in the place of /dev/null.
        if !old.is_file() {
            return refuse("not a regular file");
        }
        if old.permissions().readonly() {
            return refuse("read-only");
        }
    }
    let Some(name) = path.file_name() else {
        return refuse("not the name of a file");
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // The links are followed here, because the rename would replace a link by the file.
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(_) => fs::canonicalize(folder)?.join(name),
    };

    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".{}.{number}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = fs::File::create_new(&temporary)?;
    let staged = Staged { temporary, path };
    file.write_all(bytes)?;
    Ok(staged)
}
