//! The in-kernel filter: a classic BPF program over the packet from its network header on.
//!
//! See `Documentation/networking/filter.rst` in the kernel. A load beyond the end of the packet ends the program with
//! 0, which refuses the packet, so a short packet needs no check of its own. A packet that passes is cut to
//! [`SNAP`] bytes, which no datagram within the limits exceeds.

use crate::packet::{IPV4_HEADER_MAX, IPV6_HEADER, UDP_HEADER};
use crate::{Family, MAX_DATAGRAM, MIN_DATAGRAM};

/// Most bytes of a packet that user space ever sees, from the network header on.
pub const SNAP: usize = IPV4_HEADER_MAX + UDP_HEADER + MAX_DATAGRAM;

/// One instruction; the layout of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A line of a program: a plain operation, or a comparison that the packet has to pass.
enum Line {
    Do(u16, u32),
    /// Refuse unless the comparison holds.
    Must(u16, u32),
    /// Refuse if the comparison holds.
    MustNot(u16, u32),
}
use Line::{Do, Must, MustNot};

const LOAD_BYTE: u16 = op(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS);
const LOAD_HALF: u16 = op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS);
const LOAD_HALF_AT_X: u16 = op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND);
const LOAD_LENGTH: u16 = op(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN);
/// X becomes four times the low half of the byte: the length of an IPv4 header.
const LOAD_X_HEADER: u16 = op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH);
const LOAD_X_MEMORY: u16 = op(libc::BPF_LDX | libc::BPF_W | libc::BPF_MEM);
const STORE: u16 = op(libc::BPF_ST);
const COPY_TO_X: u16 = op(libc::BPF_MISC | libc::BPF_TAX);
const AND: u16 = op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
const ADD_X: u16 = op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X);
const SUBTRACT: u16 = op(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K);
const EQUAL: u16 = op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const EQUAL_X: u16 = op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X);
const AT_LEAST: u16 = op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const AT_LEAST_X: u16 = op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_X);
const ABOVE: u16 = op(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
const ANY_BIT: u16 = op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
const RETURN: u16 = op(libc::BPF_RET | libc::BPF_K);

/// The packet type, an ancillary load: an address that lies outside every packet.
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
const SHORTEST_UDP: u32 = (UDP_HEADER + MIN_DATAGRAM) as u32;
const LONGEST_UDP: u32 = (UDP_HEADER + MAX_DATAGRAM) as u32;

/// The program for UDP datagrams to `port` in packets of `family`.
#[must_use]
pub fn program(family: Family, port: u16) -> Vec<Instruction> {
    assemble(&match family {
        Family::V4 => ipv4(port),
        Family::V6 => ipv6(port),
    })
}

/// RFC 791. The UDP length has to fill the packet exactly; bytes behind the packet (padding of the link) do not count.
fn ipv4(port: u16) -> Vec<Line> {
    vec![
        Do(LOAD_BYTE, PACKET_TYPE),
        Must(EQUAL, libc::PACKET_HOST.into()),
        Do(LOAD_BYTE, 0),
        Do(AND, 0xf0),
        Must(EQUAL, 0x40),
        Do(LOAD_BYTE, 0),
        Do(AND, 0x0f),
        Must(AT_LEAST, 5),
        Do(LOAD_BYTE, 9),
        Must(EQUAL, libc::IPPROTO_UDP as u32),
        Do(LOAD_HALF, 6),
        MustNot(ANY_BIT, 0x3fff), // more fragments, or an offset
        Do(LOAD_X_HEADER, 0),
        Do(LOAD_HALF_AT_X, 2),
        Must(EQUAL, port.into()),
        Do(LOAD_HALF, 2),
        Do(STORE, 0),
        Do(LOAD_HALF_AT_X, 4),
        Must(AT_LEAST, SHORTEST_UDP),
        MustNot(ABOVE, LONGEST_UDP),
        Do(ADD_X, 0),
        Do(LOAD_X_MEMORY, 0),
        Must(EQUAL_X, 0),
        Do(LOAD_LENGTH, 0),
        Must(AT_LEAST_X, 0),
    ]
}

/// RFC 8200, with UDP directly behind the fixed header.
fn ipv6(port: u16) -> Vec<Line> {
    const UDP: u32 = IPV6_HEADER as u32;
    vec![
        Do(LOAD_BYTE, PACKET_TYPE),
        Must(EQUAL, libc::PACKET_HOST.into()),
        Do(LOAD_BYTE, 0),
        Do(AND, 0xf0),
        Must(EQUAL, 0x60),
        Do(LOAD_BYTE, 6),
        Must(EQUAL, libc::IPPROTO_UDP as u32),
        Do(LOAD_HALF, UDP + 2),
        Must(EQUAL, port.into()),
        Do(LOAD_HALF, 4),
        Must(AT_LEAST, SHORTEST_UDP),
        MustNot(ABOVE, LONGEST_UDP),
        Do(COPY_TO_X, 0),
        Do(LOAD_HALF, UDP + 4),
        Must(EQUAL_X, 0),
        Do(LOAD_LENGTH, 0),
        Do(SUBTRACT, UDP), // cannot wrap: the loads above lie behind the header
        Must(AT_LEAST_X, 0),
    ]
}

/// Gives each comparison its jump: on to the next line, or to the refusal at the very end.
fn assemble(lines: &[Line]) -> Vec<Instruction> {
    let accept = lines.len();
    let mut program = Vec::with_capacity(accept + 2);
    for (at, line) in lines.iter().enumerate() {
        let refuse = (accept - at) as u8; // over what follows and the acceptance; programs are far below 255 lines
        program.push(match *line {
            Do(code, k) => Instruction { code, jt: 0, jf: 0, k },
            Must(code, k) => Instruction { code, jt: 0, jf: refuse, k },
            MustNot(code, k) => Instruction { code, jt: refuse, jf: 0, k },
        });
    }
    program.push(Instruction { code: RETURN, jt: 0, jf: 0, k: SNAP as u32 });
    program.push(Instruction { code: RETURN, jt: 0, jf: 0, k: 0 });
    program
}

const fn op(code: u32) -> u16 {
    code as u16
}
