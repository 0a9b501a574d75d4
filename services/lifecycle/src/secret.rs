//! What no log may show: passwords and keys, and the files that hold them.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::ConfigError;

/// An address that may hold a password. Read as text first and parsed at start, since
/// the line about a value that can't be parsed quotes it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// What it says, as what it is to be; `flag` is named if it is none.
    pub fn parse<T: FromStr<Err: fmt::Display>>(&self, flag: &str) -> Result<T, ConfigError> {
        self.0
            .parse()
            .map_err(|error| ConfigError::new(format!("{flag}: {error}")))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// An address with the password that the file after `flag` holds, if there is such a flag.
pub fn with_password<T>(
    address: T,
    (flag, file): (&str, Option<&Path>),
    set: impl FnOnce(T, &str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let Some(path) = file else {
        return Ok(address);
    };
    set(address, &read_password(path, flag)?)
        .map_err(|error| ConfigError::new(format!("{flag}: {error}")))
}

/// The line breaks that `echo` and editors end a file with are no part of the password.
fn read_password(path: &Path, flag: &str) -> Result<String, ConfigError> {
    let text = text_of(flag, path)?;
    match text.trim_end_matches('\n') {
        "" => Err(refused(flag, path, "it is empty")),
        password => Ok(password.to_owned()),
    }
}

/// The API key that the file after `flag` holds: what can stand in a header, and nothing else.
pub fn read_key(flag: &str, path: &Path) -> Result<String, ConfigError> {
    let text = text_of(flag, path)?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(flag, path, "it must hold one key and nothing else"));
    }
    Ok(key.to_owned())
}

fn text_of(flag: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| refused(flag, path, error))
}

fn refused(flag: &str, path: &Path, why: impl fmt::Display) -> ConfigError {
    ConfigError::new(format!("{flag} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory of one test's own.
    fn directory(name: &str) -> PathBuf {
        let name = format!("sekali-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_key_is_one_word_with_nothing_beside_it() {
        let directory = directory("key");
        let path = directory.join("key");
        fs::write(&path, " a-key\r\n\n").unwrap();
        assert_eq!(read_key("--flag", &path).unwrap(), "a-key");
        for written in ["", "\n", "one\ntwo", "one two", "k\u{fc}y"] {
            fs::write(&path, written).unwrap();
            let error = read_key("--flag", &path).unwrap_err().to_string();
            assert!(error.starts_with("--flag /"), "{error}");
            assert!(error.ends_with("one key and nothing else"), "{error}");
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(read_key("--flag", &path).is_err());
    }

    #[test]
    fn a_password_is_all_of_its_file_but_the_line_breaks_at_its_end() {
        let directory = directory("password");
        let path = directory.join("password");
        for (written, read) in [
            ("a b:/@?#%'\"\\$\n", "a b:/@?#%'\"\\$"),
            (" x\ty ", " x\ty "),
            ("a\nb\n\n", "a\nb"),
        ] {
            fs::write(&path, written).unwrap();
            assert_eq!(read_password(&path, "--flag").unwrap(), read);
        }
        fs::write(&path, "\n").unwrap();
        let empty = read_password(&path, "--flag").unwrap_err().to_string();
        assert!(empty.starts_with("--flag /"), "{empty}");
        fs::remove_dir_all(&directory).unwrap();
        assert!(read_password(&path, "--flag").is_err());
    }
}
