//! The pages of `docs/`, as they stand there: their code is tested, and their links are checked.

/// One module per page. A page defines its links for a reader of the repository, at its end; the definitions here stand
/// before it, and the first one counts.
macro_rules! pages {
    ($($page:ident $file:literal)+) => {$(
        #[doc = "[`Attention`]: crate::Attention"]
        #[doc = "[`Attention::join`]: crate::Attention::join"]
        #[doc = "[`Attention::run_spans`]: crate::Attention::run_spans"]
        #[doc = "[`Backend`]: crate::Backend"]
        #[doc = "[`Bf16`]: crate::Bf16"]
        #[doc = "[`Element`]: crate::Element"]
        #[doc = "[`Error::Alias`]: crate::Error::Alias"]
        #[doc = "[`Error::Capacity`]: crate::Error::Capacity"]
        #[doc = "[`Error::Option`]: crate::Error::Option"]
        #[doc = "[`Error::Position`]: crate::Error::Position"]
        #[doc = "[`Error::Range`]: crate::Error::Range"]
        #[doc = "[`Error::Shape`]: crate::Error::Shape"]
        #[doc = "[`Error::Stride`]: crate::Error::Stride"]
        #[doc = "[`Error::Workspace`]: crate::Error::Workspace"]
        #[doc = "[`F16`]: crate::F16"]
        #[doc = "[`I8`]: crate::I8"]
        #[doc = "[`Family::Fma`]: crate::Family::Fma"]
        #[doc = "[`Family::NonFma`]: crate::Family::NonFma"]
        #[doc = "[`include_f32!`]: crate::include_f32"]
        #[doc = "[`KvCache`]: crate::KvCache"]
        #[doc = "[`merge`]: crate::merge()"]
        #[doc = "[`narrow`]: crate::narrow()"]
        #[doc = "[`rotate`]: crate::rotate()"]
        #[doc = "[c]: crate::docs::c#windows-and-webassembly"]
        #[doc = "[c small]: crate::docs::c#microcontrollers"]
        #[doc = "[conformance]: crate::docs::conformance"]
        #[doc = "[distributed]: crate::docs::distributed"]
        #[doc = "[equal bits]: crate::docs::numerics#one-answer"]
        #[doc = "[firmware]: crate::docs::firmware"]
        #[doc = "[how exact]: crate::docs::numerics#how-exact"]
        #[doc = "[one answer]: crate::docs::numerics#one-answer"]
        #[doc = "[order]: crate::docs::numerics#the-order-of-sums"]
        #[doc = "[python]: crate::docs::python"]
        #[doc = "[what the numbers mean]: crate::docs::numerics#what-the-numbers-mean"]
        #[doc = ""]
        #[doc = include_str!(concat!("../docs/", $file, ".md"))]
        pub mod $page {}
    )+};
}

pages! {
    numerics "numerics"
    conformance "conformance"
    design "design"
    firmware "firmware"
    c "c"
    python "python"
    from_others "from-others"
    distributed "distributed"
    models "models"
    profiling "profiling"
}
