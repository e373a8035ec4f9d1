//! Comments, which nft keeps in an object's user data.

/// `NFTNL_UDATA_TABLE_COMMENT`, `_CHAIN_COMMENT` and `_RULE_COMMENT` of libnftnl/udata.h.
const COMMENT: u8 = 0;

/// nft refuses to print a comment above 128 bytes, its closing NUL included.
const MAX_LEN: usize = 127;

/// A text that `nft list ruleset` prints as `comment "..."`, at most 127 bytes without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment(String);

impl Comment {
    /// The comment with this text; what does not fit or does not print is skipped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let printable = |c: &char| !c.is_control() && *c != '"' && *c != '\\';
        let mut kept: String = text.chars().filter(printable).collect();
        while kept.len() > MAX_LEN {
            kept.pop();
        }
        Self(kept)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As user data: type, length, then the text and a NUL.
    #[must_use]
    pub fn to_userdata(&self) -> Vec<u8> {
        let len = u8::try_from(self.0.len() + 1).unwrap_or(u8::MAX);
        let mut bytes = vec![COMMENT, len];
        bytes.extend(self.0.as_bytes());
        bytes.push(0);
        bytes
    }

    /// The comment in an object's user data, if there is one.
    #[must_use]
    pub fn from_userdata(mut userdata: &[u8]) -> Option<Self> {
        while let [kind, len, rest @ ..] = userdata {
            let (value, rest) = rest.split_at_checked(usize::from(*len))?;
            if *kind == COMMENT {
                let text = str::from_utf8(value.strip_suffix(&[0])?).ok()?;
                return Some(Self(text.into()));
            }
            userdata = rest;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn userdata_roundtrips(text in ".{0,200}") {
            let comment = Comment::new(&text);
            prop_assert_eq!(Comment::from_userdata(&comment.to_userdata()), Some(comment));
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Comment::from_userdata(&bytes);
        }
    }

    #[test]
    fn comment_is_found_after_other_userdata() {
        // `nft add rule ... comment "foo"` gives 00 04 66 6f 6f 00.
        let bytes = [1, 2, 9, 9, 0, 4, b'f', b'o', b'o', 0];
        assert_eq!(Comment::from_userdata(&bytes), Some(Comment::new("foo")));
        assert_eq!(Comment::from_userdata(&bytes[..4]), None);
        assert_eq!(Comment::from_userdata(&bytes[..8]), None);
    }
}
