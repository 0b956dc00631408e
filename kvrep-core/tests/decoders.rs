//! Every decoder against its own valid bytes, cut at every byte and with every single bit flipped.
#![cfg(feature = "testing")]

use kvrep_core::decoders;

#[test]
fn every_decoder_accepts_its_valid_bytes() {
    for decoder in decoders::all() {
        let valid = (decoder.valid)();
        assert!(!valid.is_empty(), "{} has no example", decoder.name);
        for (n, bytes) in valid.iter().enumerate() {
            assert!((decoder.decode)(bytes), "{} example {n}", decoder.name);
        }
    }
}

#[test]
fn no_cut_and_no_flipped_bit_of_valid_bytes_makes_a_decoder_panic() {
    for decoder in decoders::all() {
        for valid in (decoder.valid)() {
            for cut in 0..valid.len() {
                (decoder.decode)(&valid[..cut]);
            }
            let mut bytes = valid;
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                (decoder.decode)(&bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
