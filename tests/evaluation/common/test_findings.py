from vmm.evaluation.common.findings import Finding, findings_text


def test_findings_are_listed_with_what_they_do():
    two = [Finding("a", "found this", "does that"), Finding("b", "and this", "and that")]
    assert findings_text(two).splitlines() == [
        "! a: found this", "    does that", "! b: and this", "    and that",
    ]  # fmt: skip
    assert findings_text([]) == "nothing is off"
