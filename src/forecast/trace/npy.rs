//! Arrays as NumPy reads them (NEP 1, format version 1.0): a header of 128 bytes, then the values, little-endian, row by
//! row. The number of rows is written at the end.

use std::io::{Result, Seek, SeekFrom, Write};

const HEADER: usize = 128;

/// An array that grows by rows.
pub struct Npy<W> {
    out: W,
    kind: &'static str,
    /// Values per row; `None`: one, and the array has one dimension.
    width: Option<usize>,
    rows: u64,
}

fn header(kind: &str, width: Option<usize>, rows: u64) -> Vec<u8> {
    let shape = width.map_or_else(|| format!("({rows},)"), |width| format!("({rows}, {width})"));
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let len = HEADER - 10;
    bytes.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(format!("{text:<width$}\n", width = len - 1).as_bytes());
    bytes
}

impl<W: Write + Seek> Npy<W> {
    /// `kind`: NumPy's name of the type, such as `<f4`.
    pub fn new(mut out: W, kind: &'static str, width: Option<usize>) -> Result<Npy<W>> {
        out.write_all(&header(kind, width, 0))?;
        Ok(Npy { out, kind, width, rows: 0 })
    }

    /// Appends rows of 32-bit floats.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        for value in values {
            self.out.write_all(&value.to_le_bytes())?;
        }
        self.rows += (values.len() / self.width.unwrap_or(1).max(1)) as u64;
        Ok(())
    }

    /// Appends one 64-bit number.
    pub fn push_i64(&mut self, value: i64) -> Result<()> {
        self.rows += 1;
        self.out.write_all(&value.to_le_bytes())
    }

    /// Writes the number of rows.
    pub fn finish(mut self) -> Result<u64> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header(self.kind, self.width, self.rows))?;
        self.out.flush()?;
        Ok(self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_header_is_as_numpy_wants_it() {
        let mut bytes = Vec::new();
        let mut npy = Npy::new(Cursor::new(&mut bytes), "<f4", Some(2)).unwrap();
        npy.push(&[1.0, 2.0, 3.0, 4.0, f32::NAN, 0.0]).unwrap();
        assert_eq!(npy.finish().unwrap(), 3);
        assert_eq!(bytes.len(), HEADER + 24);
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, "));
        assert!(String::from_utf8_lossy(&bytes[..HEADER]).contains("'shape': (3, 2), }"));
        assert_eq!(bytes[HEADER - 1], b'\n');
        assert_eq!(bytes[HEADER..HEADER + 4], 1.0f32.to_le_bytes());
    }
}
