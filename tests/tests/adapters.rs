//! One list of scenarios over real sockets, for every adapter alike: TCP, unix sockets and TLS.

#![allow(clippy::unwrap_used, clippy::panic)] // It is a test.

mod adapters {
    mod log;
    mod on_mio;
    mod on_threads;
    mod on_tokio;
    #[cfg(target_os = "linux")]
    mod on_uring;
    mod plain;
    mod script;
    mod stage;

    mod endings;
    mod engines;
    mod entrance;
    mod failures;
    mod fragments;
    mod handshake;
    mod lame_duck;
    mod limits;
    mod overtime;
    mod requests;
    mod secure;
    mod swap;
    mod unread;
    mod warnings;

    /// Each scenario is a test of each adapter.
    macro_rules! scenarios {
        ($($module:ident { $($scenario:ident)* })*) => {
            scenarios! { spop_tokio on_tokio::OnTokio $($module { $($scenario)* })* }
            scenarios! { spop_mio on_mio::OnMio $($module { $($scenario)* })* }
            scenarios! { threads on_threads::OnThreads $($module { $($scenario)* })* }
            #[cfg(target_os = "linux")]
            scenarios! { uring on_uring::OnUring $($module { $($scenario)* })* }
        };
        ($adapter:ident $file:ident::$start:ident $($module:ident { $($scenario:ident)* })*) => {
            mod $adapter {
                $(mod $module {
                    use crate::adapters::{$file::$start, $module as scenarios, stage::play};

                    $(#[test]
                    fn $scenario() -> spop_tests::stage::Verdict {
                        play(&$start, scenarios::OVER, scenarios::$scenario)
                    })*
                })*
            }
        };
    }

    scenarios! {
        handshake {
            a_session_is_agreed_on
            a_handshake_may_come_byte_by_byte
            every_refusal_has_its_status
            a_health_check_is_answered_and_closed
            a_handshake_has_a_deadline
        }
        requests {
            every_type_comes_back
            a_thousand_at_once_are_answered_once_each
            answers_come_in_the_order_they_are_given
            the_same_ids_again_supersede
            a_slow_answer_keeps_nobody_waiting
            unknown_frames_and_reserved_flags_change_nothing
            a_notify_without_messages_is_answered_without_the_handler
        }
        fragments {
            a_payload_in_fragments_is_one_request
            payloads_may_be_interleaved
            a_long_answer_leaves_in_fragments
            the_peer_aborts_what_it_sends
            the_agent_refuses_what_arrives
            a_refused_connection_that_falls_silent_is_drained
            a_payload_over_the_limit_is_refused
            a_payload_that_does_not_go_on_is_refused
            breaches_have_their_status
        }
        engines {
            an_answer_takes_its_own_connection_while_it_can
            answers_of_a_lost_connection_take_a_sibling
            nothing_crosses_to_another_engine
            without_async_nothing_crosses_at_all
            the_same_ids_on_a_sibling_supersede
            what_comes_with_the_handshake_has_siblings_too
            a_disconnect_leaves_what_is_owed_to_a_sibling
            what_a_lost_connection_asked_has_a_deadline_too
            a_disconnect_for_a_lost_connection_is_a_failure
        }
        unread {
            an_answer_takes_a_sibling
            an_answer_at_once_takes_a_sibling
            a_disconnect_is_for_the_connection_of_its_request
        }
        endings {
            a_drain_finishes_what_is_owed
            who_has_connected_before_a_drain_is_told
            who_has_connected_before_a_drain_and_speaks_is_served
            a_drain_has_an_end
            a_stop_is_at_once
            a_disconnect_is_answered_with_its_status
            who_ends_its_side_gets_what_it_is_owed
            what_is_lost_is_cancelled
            bad_input_has_its_status_and_costs_one_connection
            a_frame_that_stops_half_way_is_given_up
            an_idle_connection_is_ended
            a_request_that_comes_at_the_end_of_the_idle_time_is_served
            a_connection_that_is_old_enough_is_drained
            after_a_disconnect_the_peer_closes_first
            or_does_not_and_is_not_waited_for
        }
        lame_duck {
            health_checks_are_refused_and_sessions_served
            when_it_is_over_the_server_drains
            without_it_a_drain_begins_at_once
        }
        overtime {
            a_late_answer_is_sent_and_counted
            at_the_limit_in_flight_the_oldest_gives_way
            haproxy_3_1_has_one_request_at_a_time
            haproxy_3_1_with_pipelining_takes_short_answers
        }
        warnings {
            requests_longer_than_the_agent_takes
            a_variable_that_haproxy_drops
            a_client_of_another_protocol
        }
        failures {
            a_failed_handler_gives_an_empty_answer
            or_sets_a_variable
            or_disconnects
            a_handler_disconnects_with_its_status
            a_handler_that_takes_too_long_is_given_up
            a_handler_that_is_stuck_holds_up_nobody
        }
        swap {
            a_handler_is_replaced_without_waiting_for_slow_requests
        }
        limits {
            requests_in_flight_on_a_connection
            requests_in_flight_in_all
            unfinished_bytes_in_all
            unfinished_bytes_of_a_connection_that_is_ended
            unfinished_bytes_of_a_request_that_is_given_up
            connections_in_all
            connections_of_a_source
            the_length_of_an_engine_id
            a_frame_longer_than_agreed
        }
        entrance {
            source_rules_decide
            a_probe_is_answered_and_closed
            a_probe_has_another_answer_in_lame_duck
            a_proxy_header_says_who_asks
            without_its_proxy_header_a_connection_ends
            rules_judge_whom_they_know_at_their_place
            who_says_nothing_is_closed_in_time
            a_stop_ends_those_without_a_session
        }
        secure {
            a_client_shows_its_certificate_or_is_refused
            an_agent_that_the_client_does_not_know_is_left
            plain_text_and_silence_end
            it_closes_layer_by_layer
            certificates_are_read_again_while_connections_go_on
            long_frames_cross_records
        }
    }
}
