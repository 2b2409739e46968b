import torch

from vmm.evaluation.probe.attentive import AttentiveProbe, Tokens, fit_attentive, score


def test_it_is_cross_attention_of_learned_queries():
    torch.manual_seed(0)
    probe, tokens = AttentiveProbe(8, 3, num_queries=2), torch.randn(4, 5, 8)
    queries = probe.queries.expand(4, 2, 8)
    chosen = torch.nn.functional.scaled_dot_product_attention(queries, tokens, tokens)
    torch.testing.assert_close(probe(tokens), probe.head(chosen.flatten(1)))


def test_it_finds_the_one_token_that_tells():
    """The class is in one token of ten, at any place; the mean of all hardly shows it."""
    torch.manual_seed(0)
    labels = torch.arange(120) % 3
    tokens = 0.3 * torch.randn(120, 10, 6)
    tokens[:, :, 5] = 0
    place = torch.randint(10, (120,))
    tokens[torch.arange(120), place] += 3 * torch.eye(6)[labels]
    tokens[torch.arange(120), place, 5] = 3
    rows = torch.arange(120)
    train = Tokens(tokens, rows[:90], torch.zeros(6), torch.ones(6))
    calls = []
    parts = (rows[:72], rows[72:90])
    probe, epochs, right = fit_attentive(train, labels[:90], parts, 0, lambda: calls.append(1))
    test = Tokens(tokens, rows[90:], torch.zeros(6), torch.ones(6))
    found = score(probe, test, torch.arange(30)).argmax(1)
    assert (found == labels[90:]).double().mean() > 0.9 and right > 90
    assert 40 < len(calls) <= 80 and 1 <= epochs <= 40


def test_the_same_seed_gives_the_same_probe_and_other_draws_go_on():
    tokens = Tokens(torch.randn(12, 2, 4), torch.arange(12), torch.zeros(4), torch.ones(4))
    labels, parts = torch.arange(12) % 2, (torch.arange(8), torch.arange(8, 12))
    state = torch.get_rng_state()
    one, *_ = fit_attentive(tokens, labels, parts, 3, lambda: None)
    assert torch.equal(state, torch.get_rng_state())
    two, *_ = fit_attentive(tokens, labels, parts, 3, lambda: None)
    assert torch.equal(one.queries, two.queries)
