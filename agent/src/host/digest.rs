//! The SHA-256 of bytes that are read to their end.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// How many bytes are read at a time.
const CHUNK: usize = 256 * 1024;

/// How many bytes there are to read, and their SHA-256. `passed` hears of each piece, and may end it with an error.
pub(crate) fn sha256(
    mut from: impl Read,
    mut passed: impl FnMut(usize) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok((bytes, digits(hash))),
            Ok(length) => {
                hash.update(&chunk[..length]);
                bytes += length as u64;
                passed(length)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What was hashed, in hexadecimal digits.
pub(crate) fn digits(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_hashed_until_somebody_gives_up() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&b"abc"[..], |_| Ok(())).unwrap(), (3, abc.to_owned()));
        let (mut heard, long) = (0, vec![7; CHUNK + 1]);
        let given_up = sha256(long.as_slice(), |length| {
            heard += length;
            Err(io::Error::other("given up"))
        });
        assert_eq!((given_up.unwrap_err().to_string(), heard), ("given up".to_owned(), CHUNK));
    }
}
