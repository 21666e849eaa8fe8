"""Ethernet II and its VLAN tags (IEEE 802.3, 802.1Q, 802.1ad)."""

from typing import Final

ETHERNET_LEN: Final = 14
VLAN_TAG_LEN: Final = 4
MAX_VLANS: Final = 4

IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
LLDP: Final = 0x88CC
VLAN: Final = 0x8100  # 802.1Q: the customer's tag
SERVICE_VLAN: Final = 0x88A8  # 802.1ad: the provider's
OLD_SERVICE_VLAN: Final = 0x9100  # the provider's before 802.1ad, still in use
MIN_ETHERTYPE: Final = 0x0600  # below it the field is a length (IEEE 802.3, 3.2.6)


def network_start(data: bytes, start: int) -> int:
    """Give where the network header begins, for an Ethernet frame that begins at `start`.

    Up to MAX_VLANS tags are skipped; the two bytes before the result are the EtherType, and name a VLAN where
    there are more. Gives 0 for a frame that ends before that.
    """
    at = start + ETHERNET_LEN
    if at > len(data):
        return 0
    last = at + MAX_VLANS * VLAN_TAG_LEN
    while at < last:
        ethertype = (data[at - 2] << 8) | data[at - 1]
        if ethertype not in (VLAN, SERVICE_VLAN, OLD_SERVICE_VLAN):
            break
        at += VLAN_TAG_LEN
        if at > len(data):
            return 0
    return at
