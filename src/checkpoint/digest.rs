//! Checksums by which A1111's web UI and the sites of models know a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Bytes between two looks at the flag: a few milliseconds of work.
const BLOCK: usize = 1 << 20;

/// The SHA-256 of a file in hexadecimal; A1111's *Model hash* is its first ten digits. `stop` ends the
/// work, which takes about a second for 1 to 2 GB.
///
/// # Errors
/// [`ErrorKind::File`](crate::ErrorKind::File) if the file cannot be read;
/// [`Cancelled`](crate::ErrorKind::Cancelled).
pub fn file(path: &Path, stop: &AtomicBool) -> Result<String> {
    let cannot = |e| Error::io(path, "the file cannot be read", e);
    rest(&mut File::open(path).map_err(cannot)?, path, stop)
}

/// The SHA-256 of a safetensors file's tensors, without the header, which programs change: the first
/// twelve digits are A1111's *Lora hashes*.
///
/// # Errors
/// As [`file()`].
pub fn tensors(path: &Path, stop: &AtomicBool) -> Result<String> {
    let cannot = |e| Error::io(path, "the file cannot be read", e);
    let mut file = File::open(path).map_err(cannot)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(cannot)?;
    file.seek(SeekFrom::Start(u64::from_le_bytes(length).saturating_add(8))).map_err(cannot)?;
    rest(&mut file, path, stop)
}

/// The eight digits by which A1111 knew a model before 2023: of 64 KiB at 1 MiB, so that different
/// models may share them.
///
/// # Errors
/// As [`file()`].
pub fn old(path: &Path) -> Result<String> {
    let cannot = |e| Error::io(path, "the file cannot be read", e);
    let mut file = File::open(path).map_err(cannot)?;
    file.seek(SeekFrom::Start(1 << 20)).map_err(cannot)?;
    let mut part = Vec::new();
    file.take(1 << 16).read_to_end(&mut part).map_err(cannot)?;
    let mut digits = bytes(&part);
    digits.truncate(8);
    Ok(digits)
}

/// The SHA-256 of `bytes` in hexadecimal.
pub fn bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn rest(file: &mut File, path: &Path, stop: &AtomicBool) -> Result<String> {
    let (mut sha, mut block) = (Sha256::new(), vec![0; BLOCK]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        match file.read(&mut block).map_err(|e| Error::io(path, "the file cannot be read", e))? {
            0 => return Ok(hexadecimal(&sha.finalize())),
            read => sha.update(&block[..read]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_checksums() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(bytes(b"abc"), abc);
        let path = tempfile::NamedTempFile::new().unwrap();
        let (go, stop) = (AtomicBool::new(false), AtomicBool::new(true));
        std::fs::write(path.path(), b"\x02\0\0\0\0\0\0\0{}abc").unwrap();
        assert_eq!(tensors(path.path(), &go).unwrap(), abc);
        assert_ne!(file(path.path(), &go).unwrap(), abc);
        assert!(file(path.path(), &stop).is_err());
        let mut long = vec![7; 1 << 20];
        long.extend(b"abc");
        std::fs::write(path.path(), long).unwrap();
        assert_eq!(old(path.path()).unwrap(), abc[..8]);
    }
}
