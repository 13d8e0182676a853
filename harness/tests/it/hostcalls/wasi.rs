//! WASI: randomness, environment, clock and file descriptors.

use super::*;

#[test]
fn the_same_seed_gives_the_same_random_bytes() {
    let text = toy(
        "",
        "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32)
           (drop (call $random (i32.const 64) (i32.const 16)))
           (drop (call $log (i32.const 2) (i32.const 64) (i32.const 16)))
           (i32.const 1))",
    );
    let module = module::from_wat(&text).expect("the module loads");
    let draw = |seed| {
        let settings = Settings { seed, ..Settings::default() };
        messages(
            &module.start(&settings).expect("it is instantiated").expect("it starts").take_log(),
        )
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn the_environment_comes_from_the_settings() {
    let mut vm = start(&toy(
        "",
        "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32)
           (drop (call $environ (i32.const 64) (i32.const 128)))
           (drop (call $log (i32.const 2) (i32.load (i32.const 64)) (i32.const 19)))
           (i32.const 1))",
    ));
    assert_eq!(messages(&vm.take_log()), ["POD_NAME=checkout-1"]);
}

#[test]
fn errors_are_those_of_envoy() {
    check("(call $close (i32.const 3))", "", [OK; 3]);
    check("(call $write (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 16))", "", [BADF; 3]);
    check("(call $clock (i32.const 2) (i64.const 0) (i32.const 16))", "", [NOTSUP; 3]);
    check("(call $random (i32.const -1) (i32.const 8))", "", [FAULT; 3]);
}

const BADF: u8 = 8;
const FAULT: u8 = 21;
const NOTSUP: u8 = 58;
