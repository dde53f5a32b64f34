//! Which types take in every value of another, as it is: the only changes of type that stored state follows (STA-16).

use arrow::datatypes::DataType;

/// Whether `to` is another type than `from`, and every value of `from` is one of `to` and stands for the same.
///
/// | from | to |
/// | --- | --- |
/// | an integer | a wider one of its sign; of an unsigned one also a wider signed one |
/// | an integer of up to 16 (32) bits | `Float32` (`Float64`) |
/// | an integer, a decimal | a decimal with as many digits before and behind the point |
/// | a float | a wider one |
/// | a string, bytes | the same in another layout of Arrow |
/// | a dictionary | what its values may become |
///
/// So no number loses digits: `Int64` to `Float64`, which Avro allows, is none of them.
///
/// ```
/// # use arrow::datatypes::DataType;
/// # use tidemill_core::state::widens;
/// assert!(widens(&DataType::Int32, &DataType::Int64));
/// assert!(!widens(&DataType::Int64, &DataType::Float64));
/// ```
pub fn widens(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return false;
    }
    if let (Some(from), Some(to)) = (integer(from), integer(to)) {
        return match (from.signed, to.signed) {
            (true, false) => false,
            _ => from.bits < to.bits,
        };
    }
    if let (Some(integer), Some(bits)) = (integer(from), float_bits(to)) {
        return integer.bits <= bits / 2 && bits >= 32;
    }
    if let (Some(from), Some(to)) = (float_bits(from), float_bits(to)) {
        return from < to;
    }
    if let (Some(from), Some(to)) = (digits(from), digits(to)) {
        return is_decimal(to.2) && from.0 <= to.0 && from.1 <= to.1 && from.2 <= to.2;
    }
    match (from, to) {
        (DataType::Dictionary(_, values), DataType::Dictionary(_, to)) => values == to || widens(values, to),
        (DataType::Dictionary(_, values), to) => values.as_ref() == to || widens(values, to),
        (from, to) => is_text(from) && is_text(to) || is_bytes(from) && is_varying_bytes(to),
    }
}

struct Integer {
    bits: u8,
    signed: bool,
}

fn integer(data_type: &DataType) -> Option<Integer> {
    let (bits, signed) = match data_type {
        DataType::Int8 => (8, true),
        DataType::Int16 => (16, true),
        DataType::Int32 => (32, true),
        DataType::Int64 => (64, true),
        DataType::UInt8 => (8, false),
        DataType::UInt16 => (16, false),
        DataType::UInt32 => (32, false),
        DataType::UInt64 => (64, false),
        _ => return None,
    };
    Some(Integer { bits, signed })
}

fn float_bits(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Float16 => Some(16),
        DataType::Float32 => Some(32),
        DataType::Float64 => Some(64),
        _ => None,
    }
}

/// Digits before and behind the point, and the width of a decimal in bits, 0 for an integer.
fn digits(data_type: &DataType) -> Option<(i16, i8, u16)> {
    let decimal = |precision: u8, scale: i8, bits| Some((i16::from(precision) - i16::from(scale), scale, bits));
    match data_type {
        DataType::Decimal32(precision, scale) => decimal(*precision, *scale, 32),
        DataType::Decimal64(precision, scale) => decimal(*precision, *scale, 64),
        DataType::Decimal128(precision, scale) => decimal(*precision, *scale, 128),
        DataType::Decimal256(precision, scale) => decimal(*precision, *scale, 256),
        other => integer(other).map(|integer| match (integer.bits, integer.signed) {
            (8, _) => (3, 0, 0),
            (16, _) => (5, 0, 0),
            (32, _) => (10, 0, 0),
            (_, true) => (19, 0, 0),
            (_, false) => (20, 0, 0),
        }),
    }
}

fn is_decimal(bits: u16) -> bool {
    bits > 0
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_varying_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_bytes(data_type: &DataType) -> bool {
    is_varying_bytes(data_type) || matches!(data_type, DataType::FixedSizeBinary(_))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, Int8Array, Int16Array, Int32Array, Int64Array, UInt8Array, UInt32Array, UInt64Array,
    };
    use arrow::compute::cast;

    use super::*;

    fn types() -> Vec<DataType> {
        use DataType::*;
        let decimals = [Decimal128(19, 0), Decimal128(20, 0), Decimal128(10, 2), Decimal128(12, 2), Decimal128(12, 4)];
        [Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64, Utf8, LargeUtf8, Boolean, Date32]
            .into_iter()
            .chain(decimals)
            .collect()
    }

    /// Exactly these: whatever is new has to be decided.
    #[test]
    fn what_widens_is_listed() {
        let wider = |from: &DataType| {
            let wider = types().into_iter().filter(|to| widens(from, to)).map(|to| format!(" {to}"));
            Some(wider.collect::<String>()).filter(|wider| !wider.is_empty())
        };
        let list = types().into_iter().filter_map(|from| Some(format!("{from}:{}\n", wider(&from)?)));
        expect_test::expect![[r#"
            Int8: Int16 Int32 Int64 Float32 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(10, 2) Decimal128(12, 2) Decimal128(12, 4)
            Int16: Int32 Int64 Float32 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(10, 2) Decimal128(12, 2) Decimal128(12, 4)
            Int32: Int64 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(12, 2)
            Int64: Decimal128(19, 0) Decimal128(20, 0)
            UInt8: Int16 Int32 Int64 UInt16 UInt32 UInt64 Float32 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(10, 2) Decimal128(12, 2) Decimal128(12, 4)
            UInt16: Int32 Int64 UInt32 UInt64 Float32 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(10, 2) Decimal128(12, 2) Decimal128(12, 4)
            UInt32: Int64 UInt64 Float64 Decimal128(19, 0) Decimal128(20, 0) Decimal128(12, 2)
            UInt64: Decimal128(20, 0)
            Float32: Float64
            Utf8: LargeUtf8
            LargeUtf8: Utf8
            Decimal128(19, 0): Decimal128(20, 0)
            Decimal128(10, 2): Decimal128(12, 2) Decimal128(12, 4)
        "#]]
        .assert_eq(&list.collect::<String>());
    }

    #[test]
    fn extremes_come_back_from_every_wider_type() {
        let extremes: Vec<ArrayRef> = vec![
            Arc::new(Int8Array::from(vec![i8::MIN, -1, 0, i8::MAX])),
            Arc::new(Int16Array::from(vec![i16::MIN, i16::MAX])),
            Arc::new(Int32Array::from(vec![i32::MIN, i32::MAX])),
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])),
            Arc::new(UInt8Array::from(vec![0, u8::MAX])),
            Arc::new(UInt32Array::from(vec![0, u32::MAX])),
            Arc::new(UInt64Array::from(vec![0, u64::MAX])),
        ];
        for column in extremes {
            for to in types().iter().filter(|to| widens(column.data_type(), to)) {
                let back = cast(&cast(&column, to).unwrap(), column.data_type()).unwrap();
                assert_eq!(&back, &column, "{} through {to}", column.data_type());
            }
        }
    }
}
