//! Where requests go.

use std::str::FromStr;

use http::Uri;
use url::Url;

/// A gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Whom to connect to.
    pub(crate) uri: Uri,
    pub(crate) is_tls: bool,
    /// What the header Host says.
    pub(crate) authority: String,
    /// What stands before `/publish`, without a slash at its end.
    base: String,
}

impl Target {
    /// The path of a request, as it stands in its first line.
    pub(crate) fn path(&self, path_and_query: &str) -> Uri {
        let path = format!("{}{path_and_query}", self.base);
        // The base is part of an URL and the rest is made of plain characters.
        Uri::try_from(path).unwrap_or_else(|_| Uri::from_static("/"))
    }

    /// For people and the report.
    pub(crate) fn name(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.base)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err("it must begin with http:// or https://".into()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it must hold no user and password; keys are in --api-key-file".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it must end with the path, without ? and #".into());
        }
        let host = url.host_str().ok_or("it names no host")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let path = url.path().trim_end_matches('/');
        let base = path.strip_suffix("/publish").unwrap_or(path);
        let uri = format!("{}://{authority}/", url.scheme());
        Ok(Self {
            uri: uri.parse().map_err(|_| "it names no host")?,
            is_tls,
            authority,
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_end_in_publish_and_have_a_path() {
        for (text, name, path) in [
            ("http://localhost:8080", "http://localhost:8080", "/publish"),
            (
                "http://localhost:8080/",
                "http://localhost:8080",
                "/publish",
            ),
            (
                "http://localhost:80/publish",
                "http://localhost",
                "/publish",
            ),
            ("https://a.b/c/publish/", "https://a.b/c", "/c/publish"),
            ("http://[::1]:8080", "http://[::1]:8080", "/publish"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.name(), name);
            assert_eq!(target.path("/publish"), path);
            assert_eq!(target.is_tls, text.starts_with("https"));
        }
    }

    #[test]
    fn what_is_no_address_of_a_gateway_is_refused_without_its_secrets() {
        for text in [
            "localhost:8080",
            "ftp://a",
            "http://u:secret@a",
            "http://a?b",
            "",
            "http://",
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
