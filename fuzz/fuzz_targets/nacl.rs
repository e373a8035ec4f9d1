#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| ephport_core::fuzz::nacl(text));
