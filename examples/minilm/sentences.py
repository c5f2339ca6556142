"""The sentences of the demo: pairs that say nearly the same, two long texts, and one alone."""

SENTENCES = [
    "A man is playing a guitar on the street corner.",
    "Someone strums an acoustic guitar for the people passing by.",
    "The cat is asleep on the warm windowsill.",
    "A kitten dozes in the sun by the window.",
    "The central bank raised interest rates to slow down inflation.",
    "Borrowing money became more expensive after the rate decision.",
    "How do I reset my password?",
    "I forgot my login details and cannot get into my account.",
    "When a honeybee finds a field of flowers, she flies home and dances on the comb.  She runs "
    "a short straight line while shaking her body, circles back, and runs it again.  The angle "
    "of the line against the vertical tells her sisters which way to fly relative to the sun, "
    "and the length of each run tells them how far: roughly one second of shaking stands for "
    "one kilometre of flight.  The richer the flowers, the longer she keeps dancing.",
    "Scout bees do not keep a good patch of blossom to themselves.  Back in the dark hive they "
    "waggle in a figure of eight, and the workers crowding around feel from the direction and "
    "the duration of the movement where the nectar lies, measured from the position of the sun.  "
    "Within minutes dozens of foragers leave for the same meadow, although none of them has ever "
    "seen it before.",
    "Rain tomorrow.",
]

# The sentences expected to be each other's nearest, by their place in the list above.
PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]

# The sentence whose attention is drawn.
DRAWN = 4
