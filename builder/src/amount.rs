//! Yields amounts of bytes as text for people.

/// Formats a number of bytes, such as `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (180 << 20, "180.0 MiB"), (3 << 30, "3.00 GiB")]
        {
            assert_eq!(super::bytes(bytes), text);
        }
    }
}
