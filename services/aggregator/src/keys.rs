//! Who may do what, where there is a file that says so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use lifecycle::{CancellationToken, Ticks, seldom};
use sha2::{Digest as _, Sha256};

use crate::body::discard;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// How often the file is looked at. A key that was taken out works for this long.
const LOOK: Duration = Duration::from_secs(2);

/// What a key is good for. `Admin` is good for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Write,
    Read,
    Admin,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

type Hash = [u8; 32];
type Known = HashMap<Hash, Scope>;

/// For how long whoever was let in may stay: until it is cancelled, since other keys are known
/// or this process drains.
#[derive(Debug, Clone)]
pub(crate) struct Admission(pub(crate) CancellationToken);

/// When a file was written, and its length.
type Stamp = (SystemTime, u64);

/// The keys of a file, as it was when it could last be read.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    path: PathBuf,
    current: Arc<RwLock<Current>>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct Current {
    known: Known,
    /// Cancelled once others are known.
    changed: CancellationToken,
}

impl Keys {
    pub(crate) fn read(path: &Path, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            current: Arc::new(RwLock::new(Current {
                known: read(path)?,
                changed: shutdown.child_token(),
            })),
            shutdown: shutdown.clone(),
        })
    }

    /// Rereads the file whenever it changes. One that can't be read changes nothing: to
    /// shut everyone out because of a slip would be worse.
    pub(crate) async fn watch(self) -> anyhow::Result<()> {
        // Not how it is now: it may have changed since it was read at the start.
        let mut seen = None;
        let mut ticks = Ticks::every(LOOK, &self.shutdown);
        while ticks.next().await {
            if let Err(error) = self.look(&mut seen) {
                let error = format!("{error:#}");
                seldom!(error, %error, "the API keys can't be reread, the old ones stay");
            }
        }
        Ok(())
    }

    /// Rereads the file unless it is as it was when that last succeeded: what made it fail
    /// may pass without a trace, as when somebody is let read it.
    fn look(&self, seen: &mut Option<Stamp>) -> anyhow::Result<()> {
        let now = stamp(&self.path);
        if now.is_some() && now == *seen {
            return Ok(());
        }
        let known = read(&self.path)?;
        *seen = now;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.known != known {
            tracing::info!(keys = known.len(), "the API keys were reread");
            current.known = known;
            current.changed.cancel();
            current.changed = self.shutdown.child_token();
        }
        Ok(())
    }

    fn check(&self, headers: &HeaderMap, wanted: Scope) -> Result<Admission, ApiError> {
        let key = bearer(headers).ok_or(ApiError::Unauthorized)?;
        // Compared by hash: how long that takes says nothing of the key.
        let hash: Hash = Sha256::digest(key).into();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        match current.known.get(&hash) {
            None => Err(ApiError::Unauthorized),
            Some(scope) if *scope == wanted || *scope == Scope::Admin => {
                Ok(Admission(current.changed.clone()))
            }
            Some(_) => Err(ApiError::Forbidden(wanted.name())),
        }
    }
}

/// Who is let through to some of the paths.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) keys: Keys,
    pub(crate) scope: Scope,
    pub(crate) metrics: Arc<Metrics>,
}

/// Lets through who has a key of the scope, and tells the handler for how long.
pub(crate) async fn require(
    State(guard): State<Guard>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match guard.keys.check(request.headers(), guard.scope) {
        Ok(admission) => {
            request.extensions_mut().insert(admission);
            Ok(next.run(request).await)
        }
        Err(refused) => {
            // Writing is publishing, of which everything that is refused is counted.
            if guard.scope == Scope::Write {
                guard.metrics.refuse(&refused, 0);
            }
            let (head, body) = request.into_parts();
            discard(&head.headers, body).await;
            Err(refused)
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim_start_matches(' '))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> anyhow::Result<Known> {
    let text = std::fs::read_to_string(path).context("read the file of API keys")?;
    parse(&text).with_context(|| format!("read the API keys of {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Known> {
    let mut known = Known::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (hash, scope) = parse_line(line).with_context(|| format!("line {number}"))?;
        if known.insert(hash, scope).is_some() {
            bail!("line {number}: the same key stands above");
        }
    }
    if known.is_empty() {
        // More likely somebody is about to write it, or has cut it short.
        bail!("it holds no key");
    }
    Ok(known)
}

fn parse_line(line: &str) -> anyhow::Result<(Hash, Scope)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [_name, scope, hash] = words[..] else {
        bail!("a line is a name, a scope and a SHA-256");
    };
    let scope = match scope {
        "write" => Scope::Write,
        "read" => Scope::Read,
        "admin" => Scope::Admin,
        _ => bail!("the scope is write, read or admin"),
    };
    let mut bytes = Hash::default();
    // The error may quote what may be a key.
    hex::decode_to_slice(hash, &mut bytes)
        .map_err(|_| anyhow!("the SHA-256 is 64 hexadecimal digits"))?;
    Ok((bytes, scope))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The SHA-256 of "secret".
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn keys(text: &str) -> Keys {
        Keys {
            path: PathBuf::new(),
            current: Arc::new(RwLock::new(Current {
                known: parse(text).unwrap(),
                changed: CancellationToken::new(),
            })),
            shutdown: CancellationToken::new(),
        }
    }

    fn check(keys: &Keys, authorization: &str, scope: Scope) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        keys.check(&headers, scope).map(drop)
    }

    #[test]
    fn a_key_is_good_for_its_scope_and_admin_for_all() {
        let reader = keys(&format!("# who\n\n grafana read {SECRET}\n"));
        assert_eq!(check(&reader, "Bearer secret", Scope::Read), Ok(()));
        assert_eq!(check(&reader, "bearer  secret", Scope::Read), Ok(()));
        let forbidden = Err(ApiError::Forbidden("write"));
        assert_eq!(check(&reader, "Bearer secret", Scope::Write), forbidden);
        for wrong in [
            "Bearer",
            "Bearer other",
            "Basic secret",
            "secret",
            "Bearer secret ",
        ] {
            assert_eq!(
                check(&reader, wrong, Scope::Read),
                Err(ApiError::Unauthorized),
                "{wrong}"
            );
        }
        let nobody = reader.check(&HeaderMap::new(), Scope::Read);
        assert_eq!(nobody.err(), Some(ApiError::Unauthorized));
        let admin = keys(&format!("me admin {}", SECRET.to_uppercase()));
        for scope in [Scope::Read, Scope::Write, Scope::Admin] {
            assert_eq!(check(&admin, "Bearer secret", scope), Ok(()));
        }
    }

    #[test]
    fn a_file_that_could_not_be_read_is_read_once_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let write = |scope: &str, second: u64| {
            std::fs::write(&path, format!("me {scope} {SECRET}")).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            file.set_modified(time).unwrap();
        };
        write("admin", 0);
        let keys = Keys::read(&path, &CancellationToken::new()).unwrap();
        let reads = || check(&keys, "Bearer secret", Scope::Read).is_ok();
        let mut seen = None;
        write("write", 1);
        keys.look(&mut seen).unwrap();
        assert!(!reads(), "it changed before the first look");
        write("wrong", 2);
        keys.look(&mut seen).unwrap_err();
        // Mended without another time or length, as when somebody is let read it.
        write("admin", 2);
        keys.look(&mut seen).unwrap();
        assert!(reads());
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_named() {
        for (text, expected) in [
            ("me", "line 1: a line is a name, a scope"),
            (&format!("\nme root {SECRET}")[..], "line 2: the scope is"),
            ("", "it holds no key"),
            ("# nobody\n", "it holds no key"),
            ("me read abc", "64 hexadecimal"),
            (&format!("me read {}", "x".repeat(64)), "64 hexadecimal"),
            (&format!("a read {SECRET}\nb read {SECRET}"), "stands above"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&SECRET[..8]), "{error}");
        }
    }
}
