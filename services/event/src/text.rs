//! Names with bounds: 1 to 255 characters, none of them a control character.

use std::borrow::Cow;
use std::fmt;

/// The longest topic, event id or source, in characters (not bytes).
pub const MAX_CHARS: usize = 255;

/// Why a text is not a name. Its display completes "`event_id` ...".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No characters at all.
    #[error("must not be empty")]
    Empty,
    /// More than [`MAX_CHARS`].
    #[error("must be at most {MAX_CHARS} characters long")]
    TooLong,
    /// A character of Unicode's category Cc, which logs and terminals act upon.
    #[error("must not contain control characters")]
    Control,
}

fn check(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    // The bytes bound the characters: most names never need counting.
    if text.len() > MAX_CHARS && text.chars().count() > MAX_CHARS {
        return Err(TextError::TooLong);
    }
    let control = if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    };
    if control {
        Err(TextError::Control)
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name<'a>(Cow<'a, str>);

        impl<'a> $name<'a> {
            /// Takes the text if it is within the bounds.
            pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, TextError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The same name, owning its text.
            pub fn into_owned(self) -> $name<'static> {
                $name(Cow::Owned(self.0.into_owned()))
            }
        }

        impl fmt::Display for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The stream of events that an event belongs to; half of its key.
    Topic
}
name! {
    /// What the sender calls the event, unique within its topic; the other half of its key.
    EventId
}
name! {
    /// Who says that it happened.
    Source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_count_characters_and_not_bytes() {
        assert!(Topic::parse("ü".repeat(255)).is_ok());
        assert_eq!(Topic::parse("ü".repeat(256)), Err(TextError::TooLong));
        assert_eq!(Topic::parse("a".repeat(256)), Err(TextError::TooLong));
        assert_eq!(Topic::parse(""), Err(TextError::Empty));
    }

    #[test]
    fn control_characters_of_ascii_and_latin_1_are_refused() {
        for text in ["a\0", "a\nb", "\u{7f}", "ü\u{85}"] {
            assert_eq!(EventId::parse(text), Err(TextError::Control), "{text:?}");
        }
        assert!(EventId::parse("naïve ☂ id with spaces").is_ok());
    }
}
