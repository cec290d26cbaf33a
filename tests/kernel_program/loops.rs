//! Ways back in the programs, as the verifier of Linux 6.1 takes them.
//!
//! Its check of the control flow (`check_cfg`) lets only jumps lead back; whether another instruction does is up to how the
//! compiler has laid out a loop. Newer kernels take both, so that loading a program there says nothing.

use aya_obj::{Object, generated::bpf_insn};

const OBJECT: &[u8] = include_bytes!("../../ebpf/objects/xfwd.bpf.o");

/// Where an instruction leads: each next one, and whether it may lead back there.
fn next(instructions: &[bpf_insn], at: usize) -> Vec<(usize, bool)> {
    const LOAD_64: u8 = 0x18;
    const JUMP_CLASSES: [u8; 2] = [5, 6];
    let instruction = instructions[at];
    let to = at.wrapping_add_signed(isize::from(instruction.off) + 1);
    match instruction.code {
        LOAD_64 => vec![(at + 2, false)],
        // goto; call; exit
        0x05 => vec![(to, true)],
        0x85 => vec![(at + 1, false)],
        0x95 => vec![],
        code if JUMP_CLASSES.contains(&(code & 7)) => vec![(at + 1, true), (to, true)],
        _ => vec![(at + 1, false)],
    }
}

/// Instructions that lead back and are no jumps, found depth first, as the verifier does.
fn refused(instructions: &[bpf_insn]) -> Vec<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        OnTheWay,
        Done,
    }
    let mut states = vec![State::New; instructions.len()];
    let mut refused = Vec::new();
    let mut way = vec![(0, next(instructions, 0).into_iter())];
    states[0] = State::OnTheWay;
    while let Some((at, rest)) = way.last_mut() {
        match rest.next() {
            Some((to, _)) if states[to] == State::New => {
                states[to] = State::OnTheWay;
                way.push((to, next(instructions, to).into_iter()));
            }
            Some((to, may_lead_back)) if states[to] == State::OnTheWay && !may_lead_back => refused.push(*at),
            Some(_) => {}
            None => {
                states[*at] = State::Done;
                way.pop();
            }
        }
    }
    refused
}

#[test]
fn only_jumps_lead_back() {
    let object = Object::parse(OBJECT).unwrap();
    assert!(object.functions.values().any(|function| function.name == "xfwd_steer"));
    for function in object.functions.values() {
        let refused = refused(&function.instructions);
        assert!(refused.is_empty(), "Linux 6.1 would refuse {}: back-edges from {refused:?}", function.name);
    }
}
