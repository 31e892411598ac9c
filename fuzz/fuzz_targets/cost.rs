//! Counts the basic blocks that are executed. `fuzz/run` builds this target so that the compiler calls
//! `__sanitizer_cov_trace_pc` in each of them, and the linker redirects it here: libFuzzer has one of its own.
#![no_main]

// In assembly, because a function would be instrumented itself.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".globl __wrap___sanitizer_cov_trace_pc",
    "__wrap___sanitizer_cov_trace_pc:",
    "inc qword ptr [rip + spop_fuzz_blocks]",
    "ret",
    ".bss",
    ".globl spop_fuzz_blocks",
    ".p2align 3",
    "spop_fuzz_blocks:",
    ".zero 8",
    ".text",
);

unsafe extern "C" {
    static spop_fuzz_blocks: u64;
}

fn blocks() -> u64 {
    // SAFETY: it is defined above, aligned, and written by this thread only.
    unsafe { (&raw const spop_fuzz_blocks).read_volatile() }
}

libfuzzer_sys::fuzz_target!(
    init: {
        assert_ne!(blocks(), 0, "nothing is counted: build this target with fuzz/run");
        spop_fuzz_bodies::count_work(blocks);
    },
    |data: &[u8]| spop_fuzz_bodies::cost(data)
);
