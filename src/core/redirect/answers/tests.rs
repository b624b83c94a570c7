use super::*;
use crate::base::slab::Slab;

const V4: Wanted = Wanted::Addresses { v4: true, v6: false };
const V6: Wanted = Wanted::Addresses { v4: false, v6: true };

fn at(millis: u64) -> Moment {
    Moment::ZERO + Span::from_millis(millis)
}

fn web() -> ServiceName {
    "web".parse().unwrap()
}

/// An answerer, and the keys of its questions.
struct Fixture {
    answerer: Answerer,
    slab: Slab<()>,
}

impl Fixture {
    fn new() -> Fixture {
        let options =
            AnswerOptions { wait: Span::from_secs(1).into(), queue_timeout: Span::from_secs(2) };
        Fixture { answerer: Answerer::new(options), slab: Slab::default() }
    }

    fn up() -> Fixture {
        let mut fixture = Fixture::new();
        fixture.answerer.handle_input(Input::QueueUp, at(0));
        fixture
    }

    fn ask(&mut self, wanted: Wanted, millis: u64) -> Key {
        let question = self.slab.insert(());
        let client = "192.0.2.1".parse().unwrap();
        let input = Input::Asked { question, service: web(), client, wanted };
        self.answerer.handle_input(input, at(millis));
        question
    }

    fn reply(&mut self, reply: Reply, millis: u64) {
        self.answerer.handle_input(Input::QueueAnswer(reply), at(millis));
    }

    fn grant(&mut self, provider: &str, millis: u64) {
        let provider = provider.parse().unwrap();
        self.reply(Reply::Provider { provider, id: None }, millis);
    }

    fn no_ticket(&mut self, millis: u64) {
        self.reply(Reply::error(ErrorCode::NoTicket, ""), millis);
    }

    /// A status with these providers, each with free tickets.
    fn list(&mut self, providers: &[(&str, u32)], millis: u64) {
        let lines: String = providers
            .iter()
            .map(|(address, free)| {
                format!(
                    "provider service=web address={address} capacity=9 free={free} state=free\n"
                )
            })
            .collect();
        self.reply(Reply::Status(lines), millis);
    }

    fn tick(&mut self, millis: u64) {
        self.answerer.handle_timeout(at(millis));
    }

    /// What it wants done, in short: the words of requests, and answers by number.
    fn wants(&mut self) -> String {
        let mut words = Vec::new();
        while let Some(output) = self.answerer.poll_output() {
            words.push(match output {
                Output::SendToQueue(request) => {
                    let mut line = Vec::new();
                    request.write(&"b", &mut line);
                    let line = String::from_utf8(line).unwrap();
                    line.trim().trim_start_matches("pegasus://b/").to_string()
                }
                Output::Answer { question, answer } => {
                    let what = match answer {
                        Answer::Providers(providers) => {
                            providers.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
                        }
                        Answer::Refused(outcome) => outcome.to_string(),
                        other => format!("{other:?}"),
                    };
                    format!("{}:{what}", question.index())
                }
            });
        }
        words.join(" ")
    }
}

const NEXT: &str = "next?service=web&client=192.0.2.1";

#[test]
fn one_ticket_is_spent_for_an_answer_with_several_addresses() {
    let mut fixture = Fixture::up();
    fixture.ask(V4, 0);
    fixture.ask(V4, 0);
    assert_eq!(fixture.wants(), "status?service=web", "one list for both");
    fixture.list(&[("10.0.0.1:80", 2), ("10.0.0.2:80", 1), ("[2001:db8::1]:80", 5)], 1);
    let avoiding = format!("{NEXT}&avoid=%5B2001:db8::1%5D:80");
    let wants = fixture.wants().replace("%3A", ":").replace("[", "%5B").replace("]", "%5D");
    assert_eq!(wants, format!("{avoiding} {avoiding}"));
    fixture.grant("10.0.0.2:80", 2);
    fixture.grant("10.0.0.1:80", 2);
    assert_eq!(
        fixture.wants(),
        "0:10.0.0.2:80+10.0.0.1:80 1:10.0.0.1:80",
        "the only ticket of .2 is spent"
    );
    // The list is still fresh, later it is not.
    fixture.ask(V4, 100);
    assert!(fixture.wants().starts_with(NEXT));
    fixture.ask(V4, 251);
    assert_eq!(fixture.wants(), "status?service=web");
}

#[test]
fn a_family_without_providers_costs_no_ticket() {
    let mut fixture = Fixture::up();
    fixture.ask(V6, 0);
    fixture.list(&[("10.0.0.1:80", 2)], 1);
    assert_eq!(fixture.wants(), "status?service=web 0:OtherFamily");
    fixture.ask(Wanted::Host("10.0.0.1".parse().unwrap()), 2);
    fixture.ask(Wanted::Host("10.0.0.2".parse().unwrap()), 2);
    assert_eq!(fixture.wants(), "1:10.0.0.1 2:NoSuchHost");
}

#[test]
fn where_the_status_is_denied_the_chosen_one_is_the_answer() {
    let mut fixture = Fixture::up();
    fixture.ask(V4, 0);
    fixture.ask(V6, 0);
    fixture.reply(Reply::error(ErrorCode::Denied, ""), 1);
    fixture.grant("10.0.0.1:80", 2);
    fixture.grant("10.0.0.1:80", 2);
    assert_eq!(
        fixture.wants(),
        format!("status?service=web {NEXT} {NEXT} 0:10.0.0.1:80 1:OtherFamily")
    );
}

#[test]
fn questions_wait_in_line_and_one_of_them_asks_for_all() {
    let mut fixture = Fixture::up();
    fixture.ask(Wanted::One, 0);
    fixture.ask(Wanted::One, 0);
    fixture.no_ticket(1);
    fixture.no_ticket(1);
    fixture.ask(Wanted::One, 2);
    assert_eq!(fixture.wants(), format!("{NEXT} {NEXT}"), "the third stands behind them");
    fixture.tick(101);
    assert_eq!(fixture.wants(), NEXT);
    fixture.tick(150);
    assert_eq!(fixture.wants(), "");
    fixture.grant("10.0.0.1:80", 160);
    fixture.grant("10.0.0.2:80", 161);
    fixture.no_ticket(162);
    assert_eq!(fixture.wants(), format!("0:10.0.0.1:80 {NEXT} 1:10.0.0.2:80 {NEXT}"));
    assert_eq!(fixture.answerer.next_timeout(), Some(at(262)));
    fixture.tick(1003);
    assert_eq!(fixture.wants(), "2:no-ticket");
    assert_eq!(fixture.answerer.count(), 0);
}

#[test]
fn a_ticket_of_an_asker_that_is_gone_serves_the_next_one() {
    let mut fixture = Fixture::up();
    let gone = fixture.ask(Wanted::One, 0);
    fixture.ask(Wanted::One, 0);
    fixture.no_ticket(1);
    fixture.no_ticket(1);
    fixture.tick(101);
    fixture.answerer.handle_input(Input::Forget { question: gone }, at(102));
    fixture.wants();
    fixture.grant("10.0.0.1:80", 103);
    assert_eq!(fixture.wants(), "1:10.0.0.1:80");
    // A late answer to nobody changes nothing.
    fixture.grant("10.0.0.1:80", 104);
    assert_eq!(fixture.wants(), "");
}

#[test]
fn a_queue_that_is_away_or_silent_costs_a_bounded_time() {
    let mut fixture = Fixture::new();
    fixture.ask(V4, 0);
    fixture.tick(1999);
    assert_eq!(fixture.wants(), "");
    fixture.tick(2000);
    assert_eq!(fixture.wants(), "0:queue-unreachable");
    // It comes and asks; then it is lost with what it was asked.
    fixture.ask(V4, 2000);
    fixture.answerer.handle_input(Input::QueueUp, at(2001));
    assert_eq!(fixture.wants(), "status?service=web");
    fixture.answerer.handle_input(Input::QueueDown, at(2002));
    fixture.answerer.handle_input(Input::QueueUp, at(2003));
    assert_eq!(fixture.wants(), "status?service=web", "asked anew");
    fixture.list(&[("10.0.0.1:80", 1)], 2004);
    fixture.grant("10.0.0.1:80", 2005);
    assert_eq!(fixture.wants(), format!("{NEXT} 1:10.0.0.1:80"));
}

#[test]
fn static_providers_stand_in_by_turns() {
    let mut fixture = Fixture::up();
    let addresses = ["10.0.9.1:80", "10.0.9.2:80", "[2001:db8::9]:80"];
    let addresses = addresses.map(|address| address.parse().unwrap()).into();
    fixture.answerer.handle_input(Input::Fallback { service: web(), addresses }, at(0));
    fixture.answerer.handle_input(Input::QueueDown, at(1));
    fixture.ask(V4, 1);
    fixture.ask(V4, 1);
    fixture.ask(V6, 1);
    fixture.ask(Wanted::One, 1);
    assert_eq!(
        fixture.wants(),
        "0:10.0.9.1:80+10.0.9.2:80 1:10.0.9.2:80+10.0.9.1:80 2:[2001:db8::9]:80 3:10.0.9.1:80"
    );
}

#[test]
fn a_long_line_asks_once_an_interval() {
    let mut fixture = Fixture::up();
    for _ in 0..1000 {
        fixture.ask(Wanted::One, 0);
    }
    assert_eq!(fixture.wants().matches("next").count(), 1000);
    (0..1000).for_each(|_| fixture.no_ticket(1));
    let mut asked = 0;
    for millis in (101..1000).step_by(10) {
        fixture.tick(millis);
        let count = fixture.wants().matches("next").count();
        (0..count).for_each(|_| fixture.no_ticket(millis));
        asked += count;
    }
    assert!((5..=10).contains(&asked), "{asked}");
    fixture.tick(1000);
    assert_eq!(fixture.wants().matches("no-ticket").count(), 1000);
    assert!(fixture.answerer.next_timeout().is_none_or(|next| next > at(1000)));
}
