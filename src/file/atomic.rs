//! Files and folders that appear whole or not at all.
//!
//! A folder `NAME` is written as `.NAME.partial`; where `NAME` exists already, it is moved to
//! `.NAME.replaced` for the instant between the two renames. Killed at any moment, a process
//! leaves either `NAME` whole, or `.NAME.replaced` whole, which [`recover`] moves back.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::FileError;

const PARTIAL: &str = ".partial";
const REPLACED: &str = ".replaced";

/// Writes a file that is either the old one or the whole new one: hidden sibling, flush to the
/// disk, rename, flush the folder.
///
/// # Errors
/// The folder is absent or not writable, or the disk is full; the old file is untouched then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let partial = sibling(path, &format!(".{}{PARTIAL}", std::process::id()))?;
    let written = write_synced(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path).map_err(|e| FileError::io("write it", path, e)));
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(match error {
            FileError::Io { action, source, .. } => FileError::io(action, path, source),
            other => other,
        });
    }
    sync_dir(parent(path))
}

/// Writes a file straight under its name and flushes it to the disk: for files inside a
/// [`StagedDir`], whose own rename makes them appear. Removes it again where writing fails.
///
/// # Errors
/// The folder is absent or not writable, or the disk is full.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = |file: &mut File| file.write_all(bytes).and_then(|()| file.sync_all());
    let mut file = File::create(path).map_err(|e| FileError::io("create it", path, e))?;
    write(&mut file).map_err(|e| {
        let _ = fs::remove_file(path);
        FileError::io("write it", path, e)
    })
}

/// A file under construction, too large to be held in memory: fill [`StagedFile::path`], then
/// [`StagedFile::commit`]. Dropped without a commit, it is removed and nothing has changed.
#[derive(Debug)]
pub struct StagedFile {
    partial: PathBuf,
    target: PathBuf,
}

impl StagedFile {
    /// Begins a file that will be called `target`; its folder must exist.
    ///
    /// # Errors
    /// The path names no file, the folder cannot be written to, or `target` is a folder.
    pub fn new(target: &Path) -> Result<Self, FileError> {
        if target.is_dir() {
            let problem = "is a folder, and a file is to be written there";
            let path = target.to_owned();
            return Err(FileError::BadPath { path, problem });
        }
        let partial = sibling(target, &format!(".{}{PARTIAL}", std::process::id()))?;
        File::create(&partial).map_err(|e| FileError::io("create it", target, e))?;
        let target = target.to_owned();
        Ok(Self { partial, target })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Flushes the file to the disk and gives it its final name, in place of any file there.
    ///
    /// # Errors
    /// The disk is full or the rename is refused: the old file, if any, is in its place then.
    pub fn commit(self) -> Result<(), FileError> {
        let io = |e| FileError::io("write it", &self.target, e);
        let file = OpenOptions::new().read(true).open(&self.partial);
        file.and_then(|file| file.sync_all()).map_err(io)?;
        fs::rename(&self.partial, &self.target).map_err(io)?;
        sync_dir(parent(&self.target))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // After a commit there is nothing of this name.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Gives a finished file `from`, already flushed to the disk, its name `to` in the same folder.
///
/// # Errors
/// The rename is refused: what stood under the name is untouched then.
pub fn put_in_place(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(|e| FileError::io("rename the finished file to it", to, e))?;
    sync_dir(parent(to))
}

/// A folder under construction: fill [`StagedDir::path`], then [`StagedDir::commit`]. Dropped
/// without a commit, it is removed and nothing has changed.
#[derive(Debug)]
pub struct StagedDir {
    partial: PathBuf,
    replaced: PathBuf,
    target: PathBuf,
    /// Nothing is removed when it is dropped.
    stays: bool,
}

impl StagedDir {
    /// Begins a folder that will be called `target`; its parents are created. Leftovers of a
    /// killed process under the same name are cleared first.
    ///
    /// # Errors
    /// The parent cannot be created or written to, or `target` is a file.
    pub fn new(target: &Path) -> Result<Self, FileError> {
        Self::begin(target, sibling(target, PARTIAL)?, false)
    }

    /// As [`StagedDir::new`], in a folder that stays until it is committed, whatever becomes of
    /// this process: another one with the same `mark` goes on with it, where `resume` is set. Those
    /// of other marks of the same length are removed.
    ///
    /// # Errors
    /// As [`StagedDir::new`].
    pub fn kept(target: &Path, mark: &str, resume: bool) -> Result<Self, FileError> {
        let own = sibling(target, &format!(".{mark}{PARTIAL}"))?;
        let folder = parent(target);
        let prefix = sibling(target, ".")?;
        let prefix = prefix.file_name().and_then(|name| name.to_str());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().zip(prefix);
            let other =
                name.and_then(|(name, prefix)| name.strip_prefix(prefix)?.strip_suffix(PARTIAL));
            let like = other.is_some_and(|other| other.len() == mark.len());
            if like && entry.path().is_dir() && !(resume && other == Some(mark)) {
                remove_tree(&entry.path())?;
            }
        }
        Self::begin(target, own, true)
    }

    fn begin(target: &Path, partial: PathBuf, stays: bool) -> Result<Self, FileError> {
        let replaced = sibling(target, REPLACED)?;
        create_parent(target)?;
        restore(target, &sibling(target, PARTIAL)?, &replaced)?;
        if target.exists() && !target.is_dir() {
            let problem = "is a file, and a folder is to be written there";
            return Err(FileError::BadPath {
                path: target.to_owned(),
                problem,
            });
        }
        if !(stays && partial.is_dir()) {
            fs::create_dir(&partial)
                .map_err(|e| FileError::io("create the folder", &partial, e))?;
        }
        Ok(Self {
            partial,
            replaced,
            target: target.to_owned(),
            stays,
        })
    }

    /// Where to write the files.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Lets it be removed when it is dropped, even if it was to stay: nothing in it is of use.
    pub fn discard(mut self) {
        self.stays = false;
    }

    /// Flushes every file to the disk and gives the folder its final name; a folder of that name
    /// is replaced.
    ///
    /// # Errors
    /// The disk is full or a rename is refused: the old folder, if any, is in its place then.
    pub fn commit(mut self) -> Result<(), FileError> {
        sync_tree(&self.partial)?;
        let parent = parent(&self.target);
        let refused = |e| FileError::io("rename the finished folder to it", &self.target, e);
        let replaces = self.target.exists();
        if replaces {
            fs::rename(&self.target, &self.replaced).map_err(refused)?;
        }
        if let Err(error) = fs::rename(&self.partial, &self.target) {
            if replaces {
                let _ = fs::rename(&self.replaced, &self.target);
            }
            return Err(refused(error));
        }
        self.stays = true;
        sync_dir(parent)?;
        if replaces {
            remove_tree(&self.replaced)?;
        }
        Ok(())
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.stays {
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

/// Clears what a killed process left in `folder`: half-written folders are removed, a folder that
/// was being replaced is put back. Call it before looking for checkpoints; does nothing where
/// `folder` is absent.
///
/// # Errors
/// The folder cannot be listed or changed.
pub fn recover(folder: &Path) -> Result<(), FileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(FileError::io("list it", folder, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| FileError::io("list it", folder, e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|n| n.strip_prefix('.')) else {
            continue;
        };
        let is_dir = entry.path().is_dir();
        let Some(stem) = name
            .strip_suffix(PARTIAL)
            .or_else(|| name.strip_suffix(REPLACED))
        else {
            continue;
        };
        if stem.is_empty() {
            continue;
        }
        if is_dir {
            let target = folder.join(stem);
            restore(
                &target,
                &sibling(&target, PARTIAL)?,
                &sibling(&target, REPLACED)?,
            )?;
        } else {
            remove_stale_file(&entry.path(), stem);
        }
    }
    Ok(())
}

/// Removes `.NAME.PID.partial` unless the process PID still runs (it may be writing it).
fn remove_stale_file(path: &Path, stem: &str) {
    let pid = stem
        .rsplit_once('.')
        .and_then(|(_, pid)| pid.parse::<u32>().ok());
    let alive = pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
    if pid.is_some() && !alive {
        let _ = fs::remove_file(path);
    }
}

fn restore(target: &Path, partial: &Path, replaced: &Path) -> Result<(), FileError> {
    if replaced.is_dir() {
        if target.exists() {
            remove_tree(replaced)?;
        } else {
            fs::rename(replaced, target).map_err(|e| FileError::io("put it back", target, e))?;
        }
    }
    if partial.is_dir() {
        remove_tree(partial)?;
    }
    Ok(())
}

/// Removes a folder and all that is in it. A process that is killed meanwhile leaves nothing under
/// its name: the folder first takes that of one under construction, which [`recover`] clears.
///
/// # Errors
/// The folder is absent or cannot be changed.
pub fn remove_dir(path: &Path) -> Result<(), FileError> {
    let partial = sibling(path, PARTIAL)?;
    if partial.is_dir() {
        remove_tree(&partial)?;
    }
    fs::rename(path, &partial).map_err(|e| FileError::io("remove it", path, e))?;
    remove_tree(&partial)
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    fs::remove_dir_all(path).map_err(|e| FileError::io("remove it", path, e))
}

/// `.NAME` + `suffix` in the same folder.
fn sibling(path: &Path, suffix: &str) -> Result<PathBuf, FileError> {
    let problem = "has no name of its own: give the path of a file or folder";
    let name = path.file_name().ok_or_else(|| FileError::BadPath {
        path: path.to_owned(),
        problem,
    })?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(suffix);
    Ok(path.with_file_name(hidden))
}

/// Creates the folder that `path` stands in, and those above it.
///
/// # Errors
/// A folder that cannot be created.
pub fn create_parent(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    fs::create_dir_all(parent).map_err(|e| FileError::io("create the folder", parent, e))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_tree(folder: &Path) -> Result<(), FileError> {
    let listed = |e| FileError::io("list it", folder, e);
    for entry in fs::read_dir(folder).map_err(listed)? {
        let path = entry.map_err(listed)?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            OpenOptions::new()
                .read(true)
                .open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|e| FileError::io("flush it to the disk", &path, e))?;
        }
    }
    sync_dir(folder)
}

/// Makes renames in `folder` last through a power cut; not every system can open a folder.
fn sync_dir(folder: &Path) -> Result<(), FileError> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|file| file.sync_all())
            .map_err(|e| FileError::io("flush it to the disk", folder, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["a.json"]);
        let absent = dir.path().join("no/such/a.json");
        let text = write_atomic(&absent, b"x").unwrap_err().to_string();
        assert!(
            text.contains("no/such/a.json") && !text.contains("partial"),
            "{text}"
        );
    }

    #[test]
    fn a_folder_appears_on_commit_only() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("runs/checkpoint-1");
        let staged = StagedDir::new(&target).unwrap();
        write_synced(&staged.path().join("a"), b"1").unwrap();
        assert!(!target.exists());
        drop(staged);
        assert!(names(target.parent().unwrap()).is_empty());

        for text in ["first", "second"] {
            let staged = StagedDir::new(&target).unwrap();
            write_synced(&staged.path().join("a"), text.as_bytes()).unwrap();
            staged.commit().unwrap();
            assert_eq!(fs::read_to_string(target.join("a")).unwrap(), text);
        }
        assert_eq!(names(target.parent().unwrap()), ["checkpoint-1"]);
    }

    #[test]
    fn a_folder_is_removed_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            fs::create_dir_all(dir.path().join(name).join("inner")).unwrap();
            dir.path().join(name)
        };
        let target = make("checkpoint-1");
        make(".checkpoint-1.partial"); // of a process that was killed on the way
        remove_dir(&target).unwrap();
        assert!(names(dir.path()).is_empty());
        let absent = remove_dir(&target).unwrap_err().to_string();
        assert!(absent.contains("checkpoint-1") && !absent.contains("partial"));
        // What lies in the way keeps the folder whole: nothing is removed under its own name.
        let target = make("checkpoint-2");
        fs::write(dir.path().join(".checkpoint-2.partial"), "a file").unwrap();
        assert!(remove_dir(&target).is_err());
        assert!(target.join("inner").is_dir());
    }

    /// Every state that a kill can leave, by hand.
    #[test]
    fn every_interrupted_state_is_recovered() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, text: &str| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("a"), text).unwrap();
        };
        let read = || fs::read_to_string(dir.path().join("best/a")).unwrap();
        // Killed while writing.
        make("best", "old");
        make(".best.partial", "half");
        recover(dir.path()).unwrap();
        assert_eq!(
            (read(), names(dir.path())),
            ("old".into(), vec!["best".into()])
        );
        // Killed between the two renames: the new folder is complete, the old one is put back.
        fs::rename(dir.path().join("best"), dir.path().join(".best.replaced")).unwrap();
        make(".best.partial", "new");
        recover(dir.path()).unwrap();
        assert_eq!(
            (read(), names(dir.path())),
            ("old".into(), vec!["best".into()])
        );
        // Killed before the old folder was removed.
        make(".best.replaced", "older");
        recover(dir.path()).unwrap();
        assert_eq!(
            (read(), names(dir.path())),
            ("old".into(), vec!["best".into()])
        );
        recover(&dir.path().join("absent")).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("run");
        fs::write(&target, "x").unwrap();
        let text = StagedDir::new(&target).unwrap_err().to_string();
        assert!(text.contains("is a file"), "{text}");
        assert_eq!(names(dir.path()), ["run"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let text = write_synced(&path, b"x").unwrap_err().to_string();
        assert!(
            text.contains("full: cannot write it\nhint: the disk is full"),
            "{text}"
        );
        assert!(names(dir.path()).is_empty());
    }

    /// Not a test of its own: run under a file-size limit by the test below.
    #[test]
    fn child_under_a_size_limit() {
        let Some(folder) = std::env::var_os("GENE_BERT_TEST_LIMITED_FOLDER") else {
            return;
        };
        let folder = PathBuf::from(folder);
        let big = vec![7u8; 1 << 16];
        let error = write_atomic(&folder.join("a.json"), &big).unwrap_err();
        assert!(error.to_string().contains("hint: "), "{error}");
        assert_eq!(fs::read(folder.join("a.json")).unwrap(), b"old");
        let staged = StagedDir::new(&folder.join("checkpoint-1")).unwrap();
        assert!(write_synced(&staged.path().join("weights"), &big).is_err());
        drop(staged);
        println!("limit reached");
    }

    #[cfg(unix)]
    #[test]
    fn a_write_that_runs_out_of_room_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(&dir.path().join("a.json"), b"old").unwrap();
        let output = std::process::Command::new("bash")
            .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "file::atomic::tests::child_under_a_size_limit",
                "--nocapture",
            ])
            .env("GENE_BERT_TEST_LIMITED_FOLDER", dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("limit reached"),
            "{output:?}"
        );
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    /// A process killed at a random moment while it replaces a folder over and over.
    #[cfg(unix)]
    #[test]
    fn kill_at_any_moment_leaves_a_whole_folder() {
        const ROLE: &str = "GENE_BERT_TEST_KILLED_FOLDER";
        if let Some(folder) = std::env::var_os(ROLE) {
            let target = PathBuf::from(folder).join("best");
            for round in 0u64.. {
                let staged = StagedDir::new(&target).unwrap();
                for file in ["a", "b", "c"] {
                    write_synced(&staged.path().join(file), &round.to_le_bytes()).unwrap();
                }
                staged.commit().unwrap();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("best");
        let staged = StagedDir::new(&target).unwrap();
        for file in ["a", "b", "c"] {
            write_synced(&staged.path().join(file), &0u64.to_le_bytes()).unwrap();
        }
        staged.commit().unwrap();
        for kill in 0..15u64 {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "file::atomic::tests::kill_at_any_moment_leaves_a_whole_folder",
                ])
                .env(ROLE, dir.path())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20 + 7 * kill % 31));
            child.kill().unwrap();
            child.wait().unwrap();
            recover(dir.path()).unwrap();
            assert_eq!(names(dir.path()), ["best"]);
            assert_eq!(names(&target), ["a", "b", "c"]);
            let read = |f: &str| fs::read(target.join(f)).unwrap();
            assert!(read("a").len() == 8 && read("a") == read("b") && read("b") == read("c"));
        }
    }
}
