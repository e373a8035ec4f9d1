//! `ephport-nft schema`

use crate::Exit;
use crate::args::SchemaArgs;
use crate::document;
use crate::output::Output;

pub(crate) fn run(args: SchemaArgs, output: &mut Output<'_>) -> Exit {
    output.document(&document::schema(args.name));
    Exit::Success
}
