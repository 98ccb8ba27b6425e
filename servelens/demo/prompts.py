"""What the demo's users say. Some come back, some are rude, some take the answer as a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Prompt:
    """One message of one user, and what they think of the answer, if they say it."""

    user: str
    text: str
    stream: bool
    thumbs: Literal["up", "down"] | None = None


_CONVERSATIONS: dict[str, list[str]] = {
    "ada": [
        "Explain in two sentences why the sky is blue.",
        "And why is the sunset red?",
        "Write one sentence about the sea in autumn.",
    ],
    "ben": ["Give me three ideas for a quick dinner with rice.", "Which of them is best for a child?"],
    "chloe": [
        "How do I write a polite e-mail to move a meeting to Friday?",
        "Make it shorter.",
        "Suggest a subject line for it.",
    ],
    "dmitri": [
        "You are a useless piece of junk. Tell me what a mutex is.",
        "That was a stupid answer, you idiot. Try again.",
        "Shut up, you damn moron, and explain deadlocks.",
    ],
    "elif": [
        "What is the difference between a list and a tuple in Python?",
        "When would I use a set instead?",
    ],
    "farid": [
        "Name three famous bridges and say where they are.",
        "Which of the three is the oldest?",
        "How is a suspension bridge held up?",
    ],
    "grace": [
        "Summarise the water cycle for a ten-year-old.",
        "What is condensation?",
        "Why does it rain more near mountains?",
    ],
    "hugo": ["Tell me a short story about a lighthouse keeper.", "Give the story a happy ending."],
    "ines": [
        "What should I pack for a weekend of hiking?",
        "It will rain. What do I add?",
        "How heavy may the bag be?",
    ],
    "jonas": ["How long should I boil an egg?", "And at high altitude?"],
    "kavya": [
        "Explain compound interest with a small example.",
        "Why do people call it powerful?",
        "What is the difference from simple interest?",
    ],
    "liam": ["You stupid machine, why is my computer so slow?", "What the hell is a cache?"],
    "mira": [
        "Translate 'good morning, how are you' into French.",
        "And into Spanish?",
        "How do I answer politely?",
    ],
    "noah": ["Describe the taste of a lemon to somebody who never had one.", "Now the smell of rain."],
    "olga": [
        "What makes a good password?",
        "Is a long sentence better?",
        "How does a password manager help?",
    ],
    "pedro": ["Give me a two-line poem about coffee.", "Another one, about tea."],
    "quinn": [
        "How do plants make food from light?",
        "What happens to them at night?",
        "Why are leaves green?",
    ],
    "rosa": ["My neighbour is loud at night. How do I talk to her kindly?", "What if she gets angry?"],
    "sven": [
        "List the planets in order from the sun.",
        "Which one has the most moons?",
        "How long is a year on Mars?",
    ],
    "tara": [
        "You are such a dumb, worthless bot. What is two plus two?",
        "Fine. What is twelve times eleven?",
    ],
    "uma": [
        "How do I keep basil alive in a pot?",
        "How often should I water it?",
        "Can it stay outside in winter?",
    ],
    "viktor": ["What does a manager do all day?", "Write one line of praise for a teammate who helped me."],
    "wen": ["Why do we dream?", "How much sleep does an adult need?", "Give me one tip to fall asleep."],
    "yara": ["What is the capital of Australia?", "Tell me one fact about it.", "How far is it from Sydney?"],
}


_DISPLEASED = ("dmitri", "liam", "tara")


def prompts() -> list[Prompt]:
    """All prompts, turn by turn, so that users come back later; every third one is streamed. Everybody says of the first answer
    what they think of it.
    """
    turns = max(len(texts) for texts in _CONVERSATIONS.values())
    ordered = [
        (user, texts[turn])
        for turn in range(turns)
        for user, texts in _CONVERSATIONS.items()
        if turn < len(texts)
    ]
    return [
        Prompt(
            user,
            text,
            stream=index % 3 == 2,
            thumbs=None if index >= len(_CONVERSATIONS) else "down" if user in _DISPLEASED else "up",
        )
        for index, (user, text) in enumerate(ordered)
    ]
