//! Writes all files, or none of them.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A written temporary file before its rename; dropping it removes the file.
struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After the rename there is nothing to remove: ignore the error.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Writes every file under a temporary name in the same folder, then renames them: the steps that are
/// likely to fail have succeeded for all files before the first rename.
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
        // A rename would replace a device such as /dev/null by a file.
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
    // Follows symbolic links, as a rename would replace the link.
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
