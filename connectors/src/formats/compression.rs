//! Compression of whole files, chosen by the ending of their name (SRC-07).

use async_compression::tokio::bufread;
use async_compression::tokio::write;
use tidemill_core::error::Result;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWriteExt};

use crate::options::Options;

/// How the bytes of a text file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `.gz`, `.gzip`
    Gzip,
    /// `.bz2`
    Bzip2,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
    /// `.deflate`: a zlib stream.
    Deflate,
}

/// Endings that hidden files of a sink carry behind their real ones.
const HIDDEN_ENDINGS: [&str; 2] = [".inprogress", ".ready"];

/// Splits `flights.csv.gz` into `flights.csv` and the compression that the ending stands for.
pub fn split_extension(name: &str) -> (&str, Compression) {
    let name = HIDDEN_ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let Some((stem, ending)) = name.rsplit_once('.') else { return (name, Compression::None) };
    let compression = match ending.to_ascii_lowercase().as_str() {
        "gz" | "gzip" => Compression::Gzip,
        "bz2" => Compression::Bzip2,
        "xz" => Compression::Xz,
        "zst" => Compression::Zstd,
        "deflate" => Compression::Deflate,
        _ => return (name, Compression::None),
    };
    (stem, compression)
}

impl Compression {
    /// What the option `<format>.compression` says; it counts for writing, reading goes by the name of the file.
    pub fn from_options(format: &str, options: &mut Options) -> Result<Self> {
        let choices = [
            ("none", Self::None),
            ("gzip", Self::Gzip),
            ("bzip2", Self::Bzip2),
            ("xz", Self::Xz),
            ("zstd", Self::Zstd),
            ("deflate", Self::Deflate),
        ];
        Ok(options.choice(&format!("{format}.compression"), &choices)?.unwrap_or_default())
    }

    /// How names of files compressed this way end.
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gz"),
            Self::Bzip2 => Some("bz2"),
            Self::Xz => Some("xz"),
            Self::Zstd => Some("zst"),
            Self::Deflate => Some("deflate"),
        }
    }

    /// The decompressed bytes of `input`. Files that were appended to one another are read to the end of the last.
    pub(crate) fn decompress<R>(self, input: R) -> Box<dyn AsyncRead + Send + Unpin>
    where
        R: AsyncBufRead + Send + Unpin + 'static,
    {
        macro_rules! members {
            ($decoder:ty) => {{
                let mut decoder = <$decoder>::new(input);
                decoder.multiple_members(true);
                Box::new(decoder)
            }};
        }
        match self {
            Self::None => Box::new(input),
            Self::Gzip => members!(bufread::GzipDecoder<R>),
            Self::Bzip2 => members!(bufread::BzDecoder<R>),
            Self::Xz => members!(bufread::XzDecoder<R>),
            Self::Zstd => members!(bufread::ZstdDecoder<R>),
            Self::Deflate => members!(bufread::ZlibDecoder<R>),
        }
    }
}

/// Compresses what is pushed into it, into memory.
pub(crate) enum Compressor {
    None(Vec<u8>),
    Gzip(write::GzipEncoder<Vec<u8>>),
    Bzip2(write::BzEncoder<Vec<u8>>),
    Xz(write::XzEncoder<Vec<u8>>),
    Zstd(write::ZstdEncoder<Vec<u8>>),
    Deflate(write::ZlibEncoder<Vec<u8>>),
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None(Vec::new()),
            Compression::Gzip => Self::Gzip(write::GzipEncoder::new(Vec::new())),
            Compression::Bzip2 => Self::Bzip2(write::BzEncoder::new(Vec::new())),
            Compression::Xz => Self::Xz(write::XzEncoder::new(Vec::new())),
            Compression::Zstd => Self::Zstd(write::ZstdEncoder::new(Vec::new())),
            Compression::Deflate => Self::Deflate(write::ZlibEncoder::new(Vec::new())),
        }
    }

    /// Takes in `bytes`. Never waits: it writes to memory.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::None(plain) => plain.extend_from_slice(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes).await?,
            Self::Bzip2(encoder) => encoder.write_all(bytes).await?,
            Self::Xz(encoder) => encoder.write_all(bytes).await?,
            Self::Zstd(encoder) => encoder.write_all(bytes).await?,
            Self::Deflate(encoder) => encoder.write_all(bytes).await?,
        }
        Ok(())
    }

    /// Ends the compressed stream.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        match self {
            Self::None(_) => {}
            Self::Gzip(encoder) => encoder.shutdown().await?,
            Self::Bzip2(encoder) => encoder.shutdown().await?,
            Self::Xz(encoder) => encoder.shutdown().await?,
            Self::Zstd(encoder) => encoder.shutdown().await?,
            Self::Deflate(encoder) => encoder.shutdown().await?,
        }
        Ok(())
    }

    /// The compressed bytes that are ready.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::None(plain) => plain,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Bzip2(encoder) => encoder.get_mut(),
            Self::Xz(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn endings_choose_the_compression() {
        assert_eq!(split_extension("a.csv.gz"), ("a.csv", Compression::Gzip));
        assert_eq!(split_extension("a.csv.BZ2"), ("a.csv", Compression::Bzip2));
        assert_eq!(split_extension("a.csv"), ("a.csv", Compression::None));
        assert_eq!(split_extension(".part-1.csv.zst.ready"), (".part-1.csv", Compression::Zstd));
    }

    #[tokio::test]
    async fn every_compression_goes_there_and_back_in_two_members() {
        use Compression::{Bzip2, Deflate, Gzip, None, Xz, Zstd};
        for compression in [None, Gzip, Bzip2, Xz, Zstd, Deflate] {
            let mut file = Vec::new();
            for part in ["one\n", "two\n"] {
                let mut compressor = Compressor::new(compression);
                compressor.push(part.as_bytes()).await.unwrap();
                compressor.finish().await.unwrap();
                file.append(compressor.output());
            }
            let mut text = String::new();
            compression.decompress(std::io::Cursor::new(file)).read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "one\ntwo\n", "{compression:?}");
        }
    }
}
