//! The records of an event log (CCEL or TPM 2.0), from its bytes.
