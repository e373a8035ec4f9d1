//! A single-pass writer of netlink messages.

use super::{ATTR_HEADER, CodecError, Header, align};

/// Builds netlink messages in one buffer. A nested attribute or a message is a closure: its length
/// is written back when the closure returns, and checked against the width of its field.
///
/// The first failure is kept, and [`Writer::finish`] returns it: what does not fit is never sent
/// truncated.
///
/// ```
/// # #[cfg(feature = "internals")] {
/// use ephport_nft::netlink::{Reader, Writer};
///
/// let mut writer = Writer::new();
/// writer.nested(1, |inner| inner.u32_be(2, 0x0102_0304));
/// let bytes = writer.finish()?;
/// let outer = Reader::new(&bytes).attrs().next().unwrap()?;
/// assert_eq!(outer.nested().next().unwrap()?.u32_be()?, 0x0102_0304);
/// # }
/// # Ok::<(), ephport_nft::CodecError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    failure: Option<CodecError>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The count of bytes in the buffer.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the buffer is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    ///
    /// # Errors
    /// The first length that did not fit its field.
    pub fn finish(self) -> Result<Vec<u8>, CodecError> {
        self.failure.map_or(Ok(self.bytes), Err)
    }

    /// The bytes so far.
    ///
    /// # Errors
    /// The first length that did not fit its field.
    pub(crate) fn written(&self) -> Result<&[u8], CodecError> {
        self.failure.clone().map_or(Ok(&self.bytes), Err)
    }

    /// The bytes so far, even if a length did not fit its field.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a length did not fit its field.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Fails if `other` has failed.
    pub(crate) fn fail_as(&mut self, other: &Self) {
        other.failure.iter().for_each(|failure| self.fail(failure.clone()));
    }

    /// Frees the room that no byte needs.
    pub(crate) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Begins anew in the same buffer.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.failure = None;
    }

    /// The bytes, even if a length did not fit its field: to be compared, not to be sent.
    #[must_use]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A message: its header, then what `body` writes.
    pub fn message(&mut self, header: Header, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.raw(&header.to_bytes(0));
        body(self);
        match message_length(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes()),
            Err(failure) => self.fail(failure),
        }
        self.pad();
    }

    /// An attribute that contains what `body` writes.
    ///
    /// `NLA_F_NESTED` is not set, as in the messages of the kernel's nf_tables: so a request and what is
    /// read back are the same bytes.
    pub fn nested(&mut self, attribute_type: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.raw(&[0; ATTR_HEADER]);
        body(self);
        let len = self.bytes.len() - start;
        match u16::try_from(len) {
            Ok(len) => {
                self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
                self.bytes[start + 2..start + 4].copy_from_slice(&attribute_type.to_ne_bytes());
            }
            Err(_) => self.fail(CodecError::AttributeTooLong { attribute: attribute_type, len }),
        }
        self.pad();
    }

    /// An attribute of these bytes.
    pub fn bytes(&mut self, attribute_type: u16, value: &[u8]) {
        self.nested(attribute_type, |w| w.raw(value));
    }

    /// A NUL-terminated string.
    pub fn string(&mut self, attribute_type: u16, value: &str) {
        self.nested(attribute_type, |w| {
            w.raw(value.as_bytes());
            w.raw(&[0]);
        });
    }

    /// One byte.
    pub fn u8(&mut self, attribute_type: u16, value: u8) {
        self.bytes(attribute_type, &[value]);
    }

    /// 16 bits in network order.
    pub fn u16_be(&mut self, attribute_type: u16, value: u16) {
        self.bytes(attribute_type, &value.to_be_bytes());
    }

    /// 32 bits in network order, the order of all numbers of nf_tables.
    pub fn u32_be(&mut self, attribute_type: u16, value: u32) {
        self.bytes(attribute_type, &value.to_be_bytes());
    }

    /// 32 bits in the order of this machine, the order of rtnetlink.
    pub fn u32_ne(&mut self, attribute_type: u16, value: u32) {
        self.bytes(attribute_type, &value.to_ne_bytes());
    }

    /// 64 bits in network order.
    pub fn u64_be(&mut self, attribute_type: u16, value: u64) {
        self.bytes(attribute_type, &value.to_be_bytes());
    }

    /// Bytes as they are, without a header: the fixed body of a message.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    fn fail(&mut self, failure: CodecError) {
        self.failure.get_or_insert(failure);
    }
}

/// A length in the type of a message's header.
fn message_length(len: usize) -> Result<u32, CodecError> {
    u32::try_from(len).map_err(|_| CodecError::MessageTooLong { len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_in_attribute_length() {
        let mut writer = Writer::new();
        writer.string(1, "inet!");
        let mut expected = 10u16.to_ne_bytes().to_vec();
        expected.extend(1u16.to_ne_bytes());
        expected.extend(b"inet!\0\0\0");
        assert_eq!(writer.finish(), Ok(expected));
    }

    #[test]
    fn a_message_above_32_bits_fails() {
        assert_eq!(message_length(0xffff_ffff), Ok(u32::MAX));
        // Only a 64-bit machine has such lengths.
        if let Ok(len) = usize::try_from(0x1_0000_0000u64) {
            assert_eq!(message_length(len), Err(CodecError::MessageTooLong { len }));
        }
    }

    #[test]
    fn a_length_above_16_bits_fails() {
        let largest = usize::from(u16::MAX) - ATTR_HEADER;
        let mut writer = Writer::new();
        writer.bytes(1, &vec![0; largest]);
        assert!(writer.finish().is_ok());

        let mut writer = Writer::new();
        writer.nested(7, |w| w.bytes(1, &vec![0; largest]));
        writer.u8(2, 0);
        assert_eq!(
            writer.finish(),
            Err(CodecError::AttributeTooLong { attribute: 7, len: 65_540 })
        );
    }
}
