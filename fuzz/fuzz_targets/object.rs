#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ephport_nft::fuzz::object(bytes));
