//! What a chat adds around the text of its messages and tools.
//!
//! Source: OpenAI Cookbook, "How to count tokens with tiktoken", sections 6 and 7 (read 2026-11), which
//! calls the figures for tools an estimate that may change. There is no published rule for other
//! vendors' templates: their overhead is part of the estimate.
//!
//! Not here: reading a request (`proxy::count`).

/// Tokens around messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatOverhead {
    /// Around every message; the role is counted besides.
    pub per_message: u64,
    /// For a name, besides its text.
    pub per_name: u64,
    /// Once, for the beginning of the reply.
    pub reply: u64,
}

/// Models since gpt-3.5-turbo-0613.
pub static CHAT: ChatOverhead = ChatOverhead { per_message: 3, per_name: 1, reply: 3 };

/// Tokens around tool definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolOverhead {
    /// For every tool, besides `name:description`.
    pub per_tool: u64,
    /// For a tool that has parameters.
    pub parameters: u64,
    /// For every parameter, besides `name:type:description`.
    pub per_parameter: u64,
    /// Taken off once per list of choices.
    pub choices_less: u64,
    /// For every choice, besides its text.
    pub per_choice: u64,
    /// Once, when there are tools.
    pub end: u64,
}

/// Models with the `o200k_base` vocabulary.
pub static TOOLS_O200K: ToolOverhead =
    ToolOverhead { per_tool: 7, parameters: 3, per_parameter: 3, choices_less: 3, per_choice: 3, end: 12 };

/// Models with the `cl100k_base` vocabulary.
pub static TOOLS_CL100K: ToolOverhead = ToolOverhead { per_tool: 10, ..TOOLS_O200K };

impl crate::Encoding {
    /// The overhead of tools for models with this vocabulary.
    #[must_use]
    pub const fn tool_overhead(self) -> &'static ToolOverhead {
        match self {
            Self::Cl100kBase => &TOOLS_CL100K,
            Self::O200kBase | Self::O200kHarmony => &TOOLS_O200K,
        }
    }
}
