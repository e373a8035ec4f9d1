//! `ephport-nft schema`

use super::Failure;
use crate::Exit;
use crate::args::SchemaArgs;
use crate::document;
use crate::output::Output;

pub(crate) fn run(args: SchemaArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    output.document(&document::schema(args.name));
    Ok(Exit::Success)
}
