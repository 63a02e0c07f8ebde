//! Byte strings for keys and values. Clones share the bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// An immutable byte string; a clone shares the bytes.
///
/// In JSON a byte string in UTF-8 is a string, so that people can read messages and logs. All others are an
/// array of one string in base64. So is a text with many control characters, since each of them would
/// take six bytes in a JSON string.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(Arc<[u8]>);

/// The name of a value, at most [`MAX_KEY`] bytes.
pub type Key = Bytes;
/// What a client stores under a key, at most [`MAX_VALUE`] bytes.
pub type Value = Bytes;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 1 << 10;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// A value of more bytes than this is large. A node takes so long to read, keep and pass it on that other
/// requests notice.
pub const LARGE: usize = 32 << 10;

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The most bytes that the JSON of this string takes, without quotation marks and brackets.
    pub fn json_bound(&self) -> usize {
        // In a string no longer than a key each byte may take six bytes. In a longer one at most a
        // quarter of the bytes do, and each of the others takes two at most, as a quotation mark does.
        3 * self.len() + 3 * self.len().min(MAX_KEY)
    }
}

impl<T: AsRef<[u8]>> From<T> for Bytes {
    fn from(bytes: T) -> Bytes {
        Bytes(bytes.as_ref().into())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if is_readable(&self.0) => serializer.serialize_str(text),
            _ => serializer.collect_seq([BASE64.encode(&self.0)]),
        }
    }
}

/// Whether few enough bytes are control characters for a JSON string. In a key all of them may be.
fn is_readable(text: &[u8]) -> bool {
    if text.len() <= MAX_KEY {
        return true;
    }
    // The count of each part fits into a byte, so that the compiler can use vector instructions.
    let control = |part: &[u8]| part.iter().map(|byte| u8::from(*byte < b' ')).sum::<u8>();
    let count: usize = text.chunks(255).map(control).map(usize::from).sum();
    count < text.len() / 4
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of one in base64")
            }

            fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Bytes, A::Error> {
                let text: Cow<str> = array.next_element()?.unwrap_or_default();
                let bytes = BASE64.decode(text.as_bytes()).map_err(A::Error::custom)?;
                Ok(Bytes(bytes.into()))
            }
        }
        deserializer.deserialize_any(BytesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_travels_as_text_and_other_bytes_as_base64() {
        let cases: [(&[u8], &str); 4] = [
            (b"", r#""""#),
            ("gr\u{fc}n \"x\"\n".as_bytes(), "\"gr\u{fc}n \\\"x\\\"\\n\""),
            (b"\x00", r#""\u0000""#),
            (b"\xff\x00", r#"["/wA="]"#),
        ];
        for (bytes, json) in cases {
            let value = Bytes::from(bytes);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<Bytes>(json).unwrap(), value);
        }
        for wrong in ["[]x", r#"["/wA"]"#, r#"["?"]"#, "[255,0]", r#"["",""]"#] {
            assert!(serde_json::from_str::<Bytes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn control_characters_travel_in_less_than_their_escapes() {
        let worst = ("\u{1}\"\"\"\"", 2.9);
        for (text, most) in [("\u{1}", 1.4), ("\n", 1.4), ("\"", 2.1), worst] {
            let value = Bytes::from(text.repeat(MAX_VALUE / text.len()));
            let json = serde_json::to_string(&value).unwrap();
            assert!(json.len() <= value.json_bound() + 4);
            let ratio = json.len() as f64 / value.len() as f64;
            assert!(ratio < most, "{text:?}: {ratio}");
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap(), value);
        }
    }
}
