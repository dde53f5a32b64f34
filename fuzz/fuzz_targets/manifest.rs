//! Any bytes, as a manifest and as what stands in front of the trailer of one: an error or a manifest, which comes back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_fuzz::checkpoint::manifest::{FORMAT_VERSION, decode, encode, seal};

fuzz_target!(init: tidemill_fuzz::let_panics_unwind(), |bytes: &[u8]| {
    assert!(decode(bytes).is_err() || bytes.len() > 16);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed, FORMAT_VERSION);
    if let Ok(manifest) = decode(&sealed) {
        let again = decode(&encode(&manifest).expect("what was read can be written"));
        assert_eq!(again.expect("what was written can be read"), manifest);
    }
});
