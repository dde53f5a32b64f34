//! States as Parquet files, which savepoints consist of: one file a layer, opened by any tool that reads Parquet.
//!
//! ```text
//! file     | "PAR1", row group | row group | row group | footer, "PAR1" |
//! chunks   '----- chunk -------'-- chunk --'-- chunk --'                      tile the file up to its footer
//! ```
//!
//! The checksum of a chunk is that of its bytes and of the footer behind the last chunk: what is needed to read the chunk is
//! what was written, or it is not read. A file is known by its name, which ends in [`EXTENSION`].
//!
//! [`plain`] brings columns into types that Parquet has, [`write`] and [`read`] are the two directions; [`measure`] comes before the latter,
//! so that no file asks for more memory than what it holds.

mod measure;
mod open;
mod plain;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(super) use plain::{plain, plain_field};
pub(super) use read::ParquetLayer;
pub(super) use write::{Label, write_file};

/// What the names of such files end in.
pub(super) const EXTENSION: &str = ".parquet";

/// Whether a file of states is one of these.
pub(super) fn is_parquet(path: &str) -> bool {
    path.ends_with(EXTENSION)
}
