//! Files of blocks, one a line: `source,outside,first,last`.
//!
//! The outside address may be empty, if it is in all lines. A first line with these four names, empty lines, and
//! what follows a `#`, are ignored. The file is read line by line, and only its table is kept.

use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use thiserror::Error;

use crate::allocation::blocks::{Block, BlockError};
use crate::allocation::explicit_blocks::{Conflict, ExplicitBlocks, MAX_BLOCKS, Rows};
use crate::net::port::{Port, PortError, PortRange};
use crate::text::quoted;

/// The most bytes of a line.
const MAX_LINE: u64 = 1024;

/// The most bytes of a file: 1 GiB.
const MAX_FILE: u64 = 1 << 30;

/// The names of the fields, which may be the first line.
const HEADER: [&str; 4] = ["source", "outside", "first", "last"];

/// The blocks of a file that the policy names `path`.
pub(crate) fn read(reader: &mut dyn BufRead, path: &str) -> Result<ExplicitBlocks, BlockFileError> {
    Ok(read_within(reader, MAX_FILE, MAX_BLOCKS)?.of_file(path))
}

fn read_within(
    reader: &mut dyn BufRead,
    max_bytes: u64,
    max_blocks: usize,
) -> Result<ExplicitBlocks, BlockFileError> {
    let mut rows = Rows::at_most(max_blocks);
    let mut reader = reader.take(max_bytes + 1);
    let (mut line, mut is_first) = (Vec::new(), true);
    for number in 1.. {
        line.clear();
        reader
            .by_ref()
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| read_error(&error))?;
        if line.is_empty() {
            break;
        }
        let located = |problem| BlockFileError::Line { line: number, problem };
        if line.len() as u64 > MAX_LINE {
            return Err(located(BlockLineError::TooLong));
        }
        let text = std::str::from_utf8(&line).map_err(|_| located(BlockLineError::NotUtf8))?;
        let text = content(text, number == 1);
        if text.is_empty() || std::mem::take(&mut is_first) && is_header(text) {
            continue;
        }
        rows.push(block(text).map_err(located)?, number).map_err(BlockFileError::of)?;
    }
    if reader.limit() == 0 {
        return Err(BlockFileError::TooLong);
    }
    rows.table().map_err(BlockFileError::of)
}

pub(crate) fn read_error(error: &io::Error) -> BlockFileError {
    BlockFileError::Read { message: error.to_string().into() }
}

/// The line without a byte order mark at the start of the file, comment and space.
fn content(line: &str, is_start: bool) -> &str {
    let line = if is_start { line.trim_start_matches('\u{feff}') } else { line };
    line.split('#').next().unwrap_or(line).trim()
}

fn is_header(line: &str) -> bool {
    line.split(',').map(|field| field.trim().to_ascii_lowercase()).eq(HEADER)
}

fn block(line: &str) -> Result<Block, BlockLineError> {
    let mut fields = line.split(',').map(str::trim);
    let mut next = || fields.next();
    let (Some(source), Some(outside), Some(first), Some(last), None) =
        (next(), next(), next(), next(), next())
    else {
        return Err(BlockLineError::Fields { text: line.into(), found: line.split(',').count() });
    };
    let address = |field, text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_| BlockLineError::NotAnAddress { field, text: text.into() })
    };
    let port = |field, text: &str| {
        text.parse::<Port>().map_err(|error| BlockLineError::Port { field, error })
    };
    let source = address("source", source)?;
    let outside = if outside.is_empty() { None } else { Some(address("outside", outside)?) };
    let (first, last) = (port("first", first)?, port("last", last)?);
    let ports =
        PortRange::new(first, last).map_err(|_| BlockLineError::Reversed { first, last })?;
    Ok(Block { source, outside, ports })
}

/// Why a file is no table of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockFileError {
    /// The file cannot be read.
    #[error(
        "cannot read the file: {message}; expected a file of lines source,outside,first,last, with a path that \
         begins at / or at the directory of the policy file"
    )]
    Read {
        /// The reason.
        message: Box<str>,
    },
    /// The policies are read without access to files.
    #[error("no file is read here: expected the blocks themselves, in blocks")]
    NoFiles,
    /// The path contains a line end or another control character.
    #[error("the path contains control characters: rename the file")]
    Path,
    /// A line.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: u32,
        /// What is wrong with it.
        problem: BlockLineError,
    },
    /// Two lines do not fit together.
    #[error("lines {first} and {second}: {error}")]
    Lines {
        /// The number of one, from 1.
        first: u32,
        /// The number of the other.
        second: u32,
        /// What is wrong with them.
        error: BlockError,
    },
    /// A file without blocks.
    #[error(
        "the file has no block: expected lines of source,outside,first,last, like \
         10.0.0.1,192.0.2.1,1024,2047"
    )]
    Empty,
    /// More bytes than are read.
    #[error("the file is longer than 1 GiB: split the policy by its sources")]
    TooLong,
    /// More blocks than a policy has.
    #[error("line {line}: there are more than {max} blocks: split the policy by its sources")]
    TooMany {
        /// The number of the first line that is too many.
        line: u32,
        /// How many blocks a policy has at most.
        max: usize,
    },
}

impl BlockFileError {
    fn of(Conflict { error, numbers: (first, second) }: Conflict) -> Self {
        match error {
            BlockError::Empty => Self::Empty,
            BlockError::TooMany { max } => Self::TooMany { line: second, max },
            BlockError::Families { inside, outside } => {
                Self::Line { line: second, problem: BlockLineError::Families { inside, outside } }
            }
            error => Self::Lines { first, second, error },
        }
    }
}

/// What is wrong with a line of a file of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BlockLineError {
    /// Not four fields.
    #[error(
        "{} has {found} fields: expected source,outside,first,last, like 10.0.0.1,192.0.2.1,1024,2047, or \
         10.0.0.1,,1024,2047 without an outside address",
        quoted(text)
    )]
    Fields {
        /// The line.
        text: Box<str>,
        /// How many it has.
        found: usize,
    },
    /// Not an address.
    #[error("{field} {} is not an address: expected one like 10.0.0.1", quoted(text))]
    NotAnAddress {
        /// The name of the field.
        field: &'static str,
        /// What was written.
        text: Box<str>,
    },
    /// Not a port.
    #[error("{field}: {error}")]
    Port {
        /// The name of the field.
        field: &'static str,
        /// The reason.
        error: PortError,
    },
    /// The ends of the block are reversed.
    #[error("first {first} is above last {last}: exchange them")]
    Reversed {
        /// The first port.
        first: Port,
        /// The last port.
        last: Port,
    },
    /// NAT does not change the family of an address.
    #[error("{inside} cannot be translated to {outside}: expected addresses of one family")]
    Families {
        /// The source.
        inside: IpAddr,
        /// The outside address.
        outside: IpAddr,
    },
    /// More bytes than a line has.
    #[error("longer than 1024 bytes: expected one block a line")]
    TooLong,
    /// Not UTF-8.
    #[error("not UTF-8: expected numbers, dots, colons and commas")]
    NotUtf8,
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn table(text: &[u8]) -> Result<ExplicitBlocks, BlockFileError> {
        read(&mut &*text, "blocks.csv")
    }

    #[test]
    fn file_means_the_same_as_a_list() {
        let list =
            "10.0.0.1=192.0.2.1:1024-2047\n10.0.0.2=192.0.2.2:5\n2001:db8::1=[2001:db8::2]:9-10";
        for file in [
            "10.0.0.1,192.0.2.1,1024,2047\n10.0.0.2,192.0.2.2,5,5\n2001:db8::1,2001:db8::2,9,10\n",
            "\u{feff}# of the shop\r\n\r\n Source, outside ,first,last \r\n10.0.0.2,192.0.2.2,5,5#x\r\n\
             2001:db8::1 , 2001:db8::2,9,10\r\n10.0.0.1,192.0.2.1,1024,2047",
        ] {
            let table = table(file.as_bytes()).unwrap();
            assert_eq!(table.to_string(), list);
            assert_eq!(table.file(), Some("blocks.csv"));
            assert_eq!(table.without_file(), list.parse().unwrap());
        }
        let table = table(b"10.0.0.1,,1024,2047").unwrap();
        assert_eq!(table.to_string(), "10.0.0.1=1024-2047");
    }

    #[test]
    fn errors_name_lines() {
        let long = "1".repeat(1025);
        let texts = [
            "",
            "# nothing\nsource,outside,first,last\n",
            "10.0.0.1,1024-2047",
            "\n10.0.0.1,192.0.2.1,1,2,3",
            "10.0.0.1,,1,2\nsource,outside,first,last",
            "10.0.0.300,,1,2",
            "10.0.0.1,x\u{1b}[31m,1,2",
            "10.0.0.1,192.0.2.1,0,2",
            "10.0.0.1,192.0.2.1,1,65536",
            "10.0.0.1,192.0.2.1,9,8",
            "10.0.0.1,2001:db8::1,1,2",
            "10.0.0.1,,1,2\n\n10.0.0.1,,3,4",
            "10.0.0.2,,5,9\n10.0.0.1,,1,5",
            "10.0.0.2,192.0.2.1,5,9\n10.0.0.1,,1,4",
            &long,
        ];
        let mut messages = Vec::new();
        for text in texts {
            let error = table(text.as_bytes()).unwrap_err();
            messages.push(format!("{} => {error}\n", crate::text::quoted(text).up_to(40)));
        }
        messages.push(format!("{}\n", table(b"10.0.0.1,,1,2\n\xff").unwrap_err()));
        assert!(matches!(
            table(b"10.0.0.1,,0,2"),
            Err(BlockFileError::Line {
                line: 1,
                problem: BlockLineError::Port { field: "first", .. }
            })
        ));
        let limited = |bytes, blocks| {
            let text = b"10.0.0.1,,1,2\n10.0.0.2,,3,4\n";
            read_within(&mut &text[..], bytes, blocks).unwrap_err()
        };
        assert_eq!(limited(27, 9), BlockFileError::TooLong);
        for error in [limited(27, 9), limited(28, 1), read_error(&io::ErrorKind::NotFound.into())] {
            messages.push(format!("{error}\n"));
        }
        expect![[r#"
            `` => the file has no block: expected lines of source,outside,first,last, like 10.0.0.1,192.0.2.1,1024,2047
            `# nothing\u000asource,outside,first,last\u000a` => the file has no block: expected lines of source,outside,first,last, like 10.0.0.1,192.0.2.1,1024,2047
            `10.0.0.1,1024-2047` => line 1: `10.0.0.1,1024-2047` has 2 fields: expected source,outside,first,last, like 10.0.0.1,192.0.2.1,1024,2047, or 10.0.0.1,,1024,2047 without an outside address
            `\u000a10.0.0.1,192.0.2.1,1,2,3` => line 2: `10.0.0.1,192.0.2.1,1,2,3` has 5 fields: expected source,outside,first,last, like 10.0.0.1,192.0.2.1,1024,2047, or 10.0.0.1,,1024,2047 without an outside address
            `10.0.0.1,,1,2\u000asource,outside,first,last` => line 2: source `source` is not an address: expected one like 10.0.0.1
            `10.0.0.300,,1,2` => line 1: source `10.0.0.300` is not an address: expected one like 10.0.0.1
            `10.0.0.1,x\u001b[31m,1,2` => line 1: outside `x\u001b[31m` is not an address: expected one like 10.0.0.1
            `10.0.0.1,192.0.2.1,0,2` => line 1: first: port 0 is not a port: expected 1 to 65535
            `10.0.0.1,192.0.2.1,1,65536` => line 1: last: port 65536 is too large: expected 1 to 65535
            `10.0.0.1,192.0.2.1,9,8` => line 1: first 9 is above last 8: exchange them
            `10.0.0.1,2001:db8::1,1,2` => line 1: 10.0.0.1 cannot be translated to 2001:db8::1: expected addresses of one family
            `10.0.0.1,,1,2\u000a\u000a10.0.0.1,,3,4` => lines 1 and 3: 10.0.0.1=1-2 and 10.0.0.1=3-4 are for the same source: expected one block for each
            `10.0.0.2,,5,9\u000a10.0.0.1,,1,5` => lines 2 and 1: 10.0.0.1=1-5 and 10.0.0.2=5-9 overlap: expected each port in one block
            `10.0.0.2,192.0.2.1,5,9\u000a10.0.0.1,,1,4` => lines 1 and 2: 10.0.0.2=192.0.2.1:5-9 names an outside address and 10.0.0.1=1-4 does not: expected it for all or none
            `1111111111111111111111111111111111111111...` => line 1: longer than 1024 bytes: expected one block a line
            line 2: not UTF-8: expected numbers, dots, colons and commas
            the file is longer than 1 GiB: split the policy by its sources
            line 2: there are more than 1 blocks: split the policy by its sources
            cannot read the file: entity not found; expected a file of lines source,outside,first,last, with a path that begins at / or at the directory of the policy file
        "#]].assert_eq(&messages.concat());
    }
}
