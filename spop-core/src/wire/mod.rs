//! Bytes and values (section 3.1 of the specification): varint, typed data, key/value lists, status codes. No state.

mod headers;
mod kv;
mod reader;
mod sink;
mod skip;
mod status;
mod to_value;
mod value;
mod varint;

pub use crate::error::{Malformed, Piece};
pub use headers::{HeaderError, HeaderIter, Headers, put_headers};
pub(crate) use headers::{encode_header_names, encode_headers};
pub(crate) use kv::pair as kv_pair;
pub use kv::{KvIter, KvList, put_pair};
pub use reader::Reader;
pub use sink::{Sink, put_string};
use skip::SHORT;
pub(crate) use skip::{skip_string, skip_value};
pub use status::Status;
pub use to_value::ToValue;
pub use value::{Value, ValueType};
use varint::long_varint;
pub use varint::{VARINT_MAX, put_varint, varint_len};
pub(crate) use varint::{read_short_varint, short_varint};
