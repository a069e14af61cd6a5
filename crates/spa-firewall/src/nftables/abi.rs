//! Numbers and sizes of `linux/netfilter/nf_tables.h`, where nothing else is said. Numbers in attributes are
//! big-endian; what is compared with a packet is as in the packet.

/// `NFNL_SUBSYS_NFTABLES`, `linux/netfilter/nfnetlink.h`.
pub const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`, `linux/netfilter.h`.
pub const INET: u8 = 1;

/// `enum nf_tables_msg_types`.
pub mod message {
    pub const NEW_TABLE: u16 = 0;
    pub const GET_TABLE: u16 = 1;
    pub const DELETE_TABLE: u16 = 2;
    pub const NEW_CHAIN: u16 = 3;
    pub const GET_CHAIN: u16 = 4;
    pub const NEW_RULE: u16 = 6;
    pub const GET_RULE: u16 = 7;
    pub const DELETE_RULE: u16 = 8;
    pub const NEW_SET: u16 = 9;
    pub const GET_SET: u16 = 10;
    pub const NEW_ELEMENT: u16 = 12;
    pub const GET_ELEMENT: u16 = 13;
    pub const DELETE_ELEMENT: u16 = 14;
}

/// `enum nft_table_attributes`.
pub mod table {
    pub const NAME: u16 = 1;
    pub const FLAGS: u16 = 2;
    pub const OWNER: u16 = 7;
    pub const FLAG_DORMANT: u32 = 0x1;
    pub const FLAG_OWNER: u32 = 0x2;
    /// Linux 6.9.
    pub const FLAG_PERSIST: u32 = 0x4;
}

/// `enum nft_chain_attributes`, `enum nft_hook_attributes`.
pub mod chain {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;
    /// `NF_INET_LOCAL_IN`, `linux/netfilter.h`.
    pub const LOCAL_IN: u32 = 1;
}

/// `enum nft_rule_attributes`.
pub mod rule {
    pub const TABLE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const EXPRESSIONS: u16 = 4;
    pub const USERDATA: u16 = 7;
}

/// `enum nft_set_attributes`, `enum nft_set_flags`.
pub mod set {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LENGTH: u16 = 5;
    pub const ID: u16 = 10;
    pub const EXPRESSION: u16 = 17;
    pub const FLAG_TIMEOUT: u32 = 0x10;
    /// Linux 5.7: with an expression for each element.
    pub const FLAG_EXPRESSION: u32 = 0x100;
}

/// `enum nft_set_elem_list_attributes`, `enum nft_set_elem_attributes`.
pub mod element {
    pub const LIST_TABLE: u16 = 1;
    pub const LIST_SET: u16 = 2;
    pub const LIST_ELEMENTS: u16 = 3;
    pub const KEY: u16 = 1;
    pub const TIMEOUT: u16 = 4;
    pub const EXPIRATION: u16 = 5;
    pub const USERDATA: u16 = 6;
    pub const EXPRESSION: u16 = 7;
}

/// `NFTA_LIST_ELEM`, `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
pub const LIST_ELEMENT: u16 = 1;
pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;

/// `enum nft_expr_attributes`.
pub mod expression {
    pub const NAME: u16 = 1;
    pub const DATA: u16 = 2;
}

/// `enum nft_verdict_attributes` and the verdicts, those below 0 of `enum nft_verdicts`, the others of
/// `linux/netfilter.h`.
pub mod verdict {
    pub const CODE: u16 = 1;
    pub const CHAIN: u16 = 2;
    pub const DROP: i32 = 0;
    pub const ACCEPT: i32 = 1;
    pub const JUMP: i32 = -3;
    pub const RETURN: i32 = -5;
    /// The register that holds the verdict, `NFT_REG_VERDICT`.
    pub const REGISTER: u32 = 0;
}

/// `enum nft_counter_attributes`.
pub mod counter {
    pub const BYTES: u16 = 1;
    pub const PACKETS: u16 = 2;
}
