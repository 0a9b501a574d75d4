//! What makes a reconciliation start over later.

/// The API server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", words(.source))]
pub(crate) struct Error {
    doing: &'static str,
    source: kube::Error,
}

impl Error {
    /// Adds what was being done.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self { doing, source }
    }

    /// One word, for metrics.
    pub(crate) fn class(&self) -> &'static str {
        match &self.source {
            kube::Error::Api(status) => match status.code {
                403 => "forbidden",
                404 => "not-found",
                409 => "conflict",
                422 => "invalid",
                429 | 500.. => "unavailable",
                _ => "refused",
            },
            kube::Error::SerdeError(_) => "malformed",
            _ => "unreachable",
        }
    }

    /// It is refused until somebody changes something: who looks at the resource is to know.
    pub(crate) fn is_refusal(&self) -> bool {
        ["forbidden", "invalid", "refused"].contains(&self.class())
    }

    /// Somebody else was faster, which the next attempt takes into account.
    pub(crate) fn is_conflict(&self) -> bool {
        self.class() == "conflict"
    }
}

/// What the API server says, without how `kube` keeps it.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}
