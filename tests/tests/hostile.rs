//! Peers that mean harm, or behave as if, against the echo agents as programs of their own: what each gets, what it costs,
//! and what others notice of it.

mod hostile {
    mod arena;
    mod crowds;
    mod echo;
    mod floods;
    mod input;
    mod program;
}
