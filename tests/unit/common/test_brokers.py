"""What a source says of a broker of its own, and which of them may be connected to."""

import pytest

from sens_common.brokers import Address, Broker, address_of, allowing, checked_pattern, client_id_of, may_be_private


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("mqtt://broker", Address("broker", 1883, False)),
            ("mqtts://Broker.Example.org./", Address("broker.example.org", 8883, True)),
            ("mqtt://10.0.0.7:18830", Address("10.0.0.7", 18830, False)),
            ("mqtts://[2001:db8::1]:8883", Address("2001:db8::1", 8883, True)),
        ],
    )
    def test_is_host_and_port(self, url: str, address: Address) -> None:
        assert address_of(url) == address

    @pytest.mark.parametrize(
        "url",
        [
            "broker:1883", "http://broker", "mqtt://", "mqtt://broker:0", "mqtt://broker:99999", "mqtt://broker:x", "mqtt://broker/path",
            "mqtt://broker?x=1", "mqtt://broker#x", "mqtt://-broker", "mqtt://bro ker", "mqtt://broker\n", "mqtt://[::1", "mqtt://a\0b",
            "mqtt://*", f"mqtt://{'a' * 300}",
        ],
    )  # fmt: skip
    def test_of_anything_else_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match=r"mqtt://host:port"):
            address_of(url)

    def test_with_a_password_is_refused_without_repeating_it(self) -> None:
        with pytest.raises(ValueError, match="belong into a credential") as caught:
            address_of("mqtt://user:" + "hidden@broker")
        assert "hidden" not in str(caught.value)


class TestPattern:
    @pytest.mark.parametrize(
        ("pattern", "host", "port", "fits"),
        [
            ("broker.example.org:8883", "broker.example.org", 8883, True),
            ("broker.example.org:8883", "broker.example.org", 1883, False),
            ("broker.example.org:*", "broker.example.org", 1883, True),
            ("*.example.org:8883", "a.b.example.org", 8883, True),
            ("*.example.org:8883", "example.org", 8883, False),
            ("*.example.org:8883", "a.example.org.evil.test", 8883, False),
            ("[2001:db8::1]:8883", "2001:db8::1", 8883, True),
            ("10.0.0.*:1883", "10.0.0.7", 1883, True),
        ],
    )
    def test_allows_what_fits_as_a_whole(self, pattern: str, host: str, port: int, *, fits: bool) -> None:
        assert allowing([checked_pattern(pattern)], Address(host, port, is_tls=False)) == (pattern if fits else None)

    def test_that_names_the_host_comes_first_and_alone_leads_to_private_networks(self) -> None:
        patterns = ["*:1883", "nas.local:1883"]
        assert allowing(patterns, Address("nas.local", 1883, is_tls=False)) == "nas.local:1883"
        assert [may_be_private(pattern) for pattern in patterns] == [False, True]

    @pytest.mark.parametrize("text", ["broker", "broker:", ":1883", "broker:1883/x", "mqtt://broker:1883", "a b:1", ""])
    def test_of_another_form_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no pattern of hosts"):
            checked_pattern(text)


class TestClientId:
    def test_follows_from_tenant_and_address_alone(self) -> None:
        first, second = Broker("mqtts://broker"), Broker("mqtts://BROKER:8883", credential="other", version="3.1.1")
        assert client_id_of("demo", first) == client_id_of("demo", second)
        assert client_id_of("demo", first) != client_id_of("acme", first)
        assert client_id_of("demo", Broker("mqtts://broker", client_id="mine")) == "mine"
