use std::fs::{File, remove_file};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::directory;

/// A directory of a server's own, which goes away with the value; with a file system of its
/// own, it can be full.
pub struct Disk {
    directory: TempDir,
    is_small: bool,
}

/// What takes up the rest of a full disk.
const BALLAST: &str = "ballast";

impl Disk {
    /// As large as the machine's.
    pub fn roomy() -> Self {
        Self {
            directory: directory(),
            is_small: false,
        }
    }

    /// Of so many MiB, in memory. None where this process may not mount one.
    pub fn small(mib: u32) -> Option<Self> {
        let mut disk = Self::roomy();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(disk.path())
            .output()
            .is_ok_and(|mount| mount.status.success());
        disk.is_small = mounted;
        mounted.then_some(disk)
    }

    /// Whether it is a file system of its own.
    pub fn is_small(&self) -> bool {
        self.is_small
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves no byte on it.
    pub fn fill(&self) {
        assert!(self.is_small, "it would fill the machine's");
        let mut ballast = File::create(self.path().join(BALLAST)).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn empty(&self) {
        remove_file(self.path().join(BALLAST)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_small {
            // Lazily, since a server that was killed may take a moment to let go of it.
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_can_be_full() {
        // Where nothing can be mounted, no disk is filled either.
        let Some(disk) = Disk::small(2) else { return };
        let write = || std::fs::write(disk.path().join("file"), [0; 10_000]);
        write().unwrap();
        disk.fill();
        assert!(std::fs::write(disk.path().join("other"), [0; 10_000]).is_err());
        disk.empty();
        write().unwrap();
    }
}
