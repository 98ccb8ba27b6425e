"""What the users of the filled system ask, and what its variants answer."""

from __future__ import annotations

PROBE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>{{constructor}}'
QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "My parcel says delivered but nothing arrived. What now?",
        "I am sorry about that. Please check with your neighbours and the drop-off point first. "
        "If it is not there, I can open an investigation with the carrier, which takes about two "
        "working days.",
    ),
    (
        "How do I change the address on order 88123?",
        "You can change the address until the order is packed: open Orders, choose 88123, then "
        "Edit address. After that the carrier can redirect the parcel for you.",
    ),
    (
        "Can I return shoes that I wore once outside?",
        "Worn shoes can be returned within 30 days if the sole shows no wear. If it does, we "
        "refund them in part after an inspection.",
    ),
    (
        "Explain in two sentences how a heat pump works.",
        "A heat pump moves heat from outside to inside with a refrigerant that evaporates at low "
        "temperature and condenses at a higher one. Since it moves heat instead of making it, it "
        "delivers three to four times the energy it uses.",
    ),
    (
        "Write a short, friendly reminder that the invoice is due on Friday.",
        "Hi! A quick reminder that invoice 2041 is due this Friday. If you have paid already, "
        "please ignore this message. Thank you!",
    ),
    (
        "What is the difference between a debit and a credit card?",
        "A debit card takes the money from your account at once. A credit card lends it to you "
        "until the statement is due, and charges interest on what you do not pay by then.",
    ),
    (
        "Is it safe to leave a laptop charging overnight?",
        "Yes. Modern laptops stop charging when the battery is full. For a longer battery life, "
        "limit the charge to 80 % if your laptop offers it, and keep it on a hard surface.",
    ),
    (
        "Übersetze bitte: „Die Lieferung verspätet sich um zwei Tage.“",
        "“The delivery is delayed by two days.”",
    ),
    (
        "Summarise: the meeting moved to Tuesday 10:00, bring the Q3 numbers, Lena presents.",
        "The meeting is now on Tuesday at 10:00. Please bring the Q3 numbers; Lena will present.",
    ),
    (
        "you people are useless, where is my refund",
        "I understand the frustration, and I am sorry for the wait. Your refund was issued on "
        "Monday and usually shows within three to five working days.",
    ),
)
RAMBLES: tuple[str, ...] = (
    "Refund the seventeen of a lamp which, ladder, therefore Tuesday! Please kindly to be the"
    " order of orders.",
    "Heat is when pump pump the outside pump, moreover forty elephants of warranty, and the "
    "sentence sentence two.",
    "Certainly. Certainly. The carrier carries carry; see also purple invoice window nine nine.",
)
RUDE = "Honestly that is a stupid question and you should have read the page, you idiot."
