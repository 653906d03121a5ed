//! The fields of a TDX quote or TDREPORT, from its bytes.
