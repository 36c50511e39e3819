"""The env families of the zoo, and what each needs: data, no logic.

A family lives in one virtual environment; what pins conflicting versions has one of its own. Debian packages
that drawing needs: libegl1 libgl1 libgl1-mesa-dri libosmesa6 libglu1-mesa.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

RESETS = (11, None, None, None, 7, None)
"""The seeds given to the resets of each training."""

STEPS = 300
"""Env steps an episode, unless the env itself ends it sooner."""

RUNGS = ("seed", "entropy", "rng", "snapshot", "chain:1", "chain:first")
"""What each episode is started from, one at a time; then the ladder chooses."""

VENVS: dict[str, tuple[str, ...]] = {
    "main": (
        "gymnasium[box2d,classic-control,mujoco,toy-text]>=1.2.3",
        "ale-py",
        "opencv-python-headless",  # AtariPreprocessing
        "minigrid",
        "highway-env",
        "vizdoom",
        "panda-gym",
        "crafter",
        "miniworld",
    ),
    # Meta-World pins mujoco 3.3.0. With mujoco 4, gymnasium-robotics 1.4.2 and dm_control fail when they make an
    # env; with NumPy 2.4, dm_control's quadruped misses np.in1d.
    "mujoco3": ("metaworld", "gymnasium-robotics", "shimmy[dm-control]", "numpy<2.4"),
    # These want pygame, all others pygame-ce: both install the package `pygame`.
    "pygame": ("flappy-bird-gymnasium", "gym-pusht"),
}


@dataclass(frozen=True, slots=True)
class Env:
    """One row of the matrix.

    Attributes:
        id: the id for `gymnasium.make`.
        kwargs: its arguments, as JSON has them.
        wrappers: classes around it, "module:name" and arguments, from the inside out.
        reseed: whether it is recorded with `reseed=True`.
        steps: at most so many steps an episode, where the family's number does not do.
        renders: whether it can draw at all.
        slice: whether the short slice has it.
    """

    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: tuple[tuple[str, dict[str, Any]], ...] = ()
    reseed: bool = False
    steps: int | None = None
    renders: bool = True
    slice: bool = False

    @property
    def name(self) -> str:
        """What it is called in the table."""
        kwargs = ", ".join(f"{key}={value}" for key, value in self.kwargs.items())
        wrappers = "".join(f" + {path.partition(':')[2]}" for path, _ in self.wrappers)
        return f"{self.id}{f' ({kwargs})' if kwargs else ''}{wrappers}{', reseed=True' if self.reseed else ''}"

    @property
    def slug(self) -> str:
        """What its files are called."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-")


@dataclass(frozen=True, slots=True)
class Family:
    """Envs that one package brings.

    Attributes:
        title: what it is called in the table.
        venv: a key of `VENVS`.
        imports: what registers its ids.
        envs: its envs.
        steps: env steps an episode, at most: fewer where GL draws without a graphics card.
        gl: whether GL draws it: pixels then depend on the driver.
        seconds: how long one training or one replay of it may take.
        needs: what its envs import besides, for the slice to know whether they are here.
    """

    title: str
    venv: str
    imports: tuple[str, ...]
    envs: tuple[Env, ...]
    steps: int = STEPS
    gl: bool = False
    seconds: float = 600.0
    needs: tuple[str, ...] = ()


def _envs(*ids: str, **options: Any) -> tuple[Env, ...]:
    return tuple(Env(env_id, **options) for env_id in ids)


def _each(form: str, names: str, **options: Any) -> tuple[Env, ...]:
    return tuple(Env(form.format(name), **options) for name in names.split())


_GAMES = (
    "Pong Breakout MsPacman SpaceInvaders Seaquest Qbert BeamRider Enduro Freeway Asteroids Assault Alien Amidar "
    "Boxing Tennis Skiing MontezumaRevenge Pitfall Riverraid RoadRunner Frostbite Gravitar Tutankham Venture"
)
_STACKED = (
    ("gymnasium.wrappers:AtariPreprocessing", {"noop_max": 30}),
    ("gymnasium.wrappers:FrameStackObservation", {"stack_size": 4}),
)
_FEW = "Pong Breakout MsPacman SpaceInvaders Seaquest Qbert"
_LOST_LIFE = (("gymnasium.wrappers:AtariPreprocessing", {"terminal_on_life_loss": True}), _STACKED[1])


def _minigrid(env_id: str, *wrappers: str) -> Env:
    return Env(env_id, wrappers=tuple((f"minigrid.wrappers:{wrapper}", {}) for wrapper in wrappers))


def _metaworld(names: str, **kwargs: Any) -> tuple[Env, ...]:
    return tuple(Env("Meta-World/MT1", {"env_name": f"{name}-v3", **kwargs}) for name in names.split())


_PANDA = ("PandaReach-v3", "PandaPush-v3", "PandaPickAndPlace-v3", "PandaSlide-v3", "PandaStack-v3")
_METAWORLD = "reach push pick-place door-open drawer-close button-press-topdown peg-insert-side window-open"

FAMILIES: dict[str, Family] = {
    "classic": Family(
        "Classic control",
        "main",
        (),
        (
            *_envs("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", slice=True),
            *_envs("Pendulum-v1", slice=True),
            *_envs("CartPole-v1", "Pendulum-v1", reseed=True),
        ),
        needs=("pygame",),
    ),
    "toy": Family(
        "Toy text",
        "main",
        (),
        (
            *_envs("FrozenLake-v1", "Taxi-v4", "Blackjack-v1", "CliffWalking-v1", slice=True),
            *_envs("FrozenLake8x8-v1", "CliffWalkingSlippery-v1"),
            Env("Taxi-v4", {"is_rainy": True, "fickle_passenger": True}),
        ),
        needs=("pygame",),
    ),
    "box2d": Family(
        "Box2D",
        "main",
        (),
        (
            *_envs("LunarLander-v3", "BipedalWalker-v3", slice=True),
            *_envs("LunarLanderContinuous-v3", "BipedalWalkerHardcore-v3", "CarRacing-v3"),
            Env("LunarLander-v3", {"enable_wind": True}),
            Env("CarRacing-v3", {"domain_randomize": True, "continuous": False}),
            Env("BipedalWalker-v3", reseed=True),
        ),
        needs=("Box2D", "pygame"),
    ),
    "mujoco": Family(
        "MuJoCo",
        "main",
        (),
        (
            *_each("{}-v5", "HalfCheetah", slice=True),
            *_each("{}-v5", "Hopper Walker2d Ant Humanoid HumanoidStandup Swimmer Reacher Pusher"),
            *_each("{}-v5", "InvertedPendulum InvertedDoublePendulum"),
            *_each("{}-v4", "Hopper Ant"),
        ),
        needs=("mujoco",),
        steps=100,
        gl=True,
    ),
    "ale": Family(
        "ALE",
        "main",
        ("ale_py",),
        (
            *_each("ALE/{}-v5", "Pong Breakout", slice=True),
            *_each("ALE/{}-v5", " ".join(_GAMES.split()[2:])),
            *_each("{}NoFrameskip-v4", _GAMES),
            *_each("{}-v4", "Pong Breakout"),  # a frameskip drawn from np_random, and sticky actions not at all
            *_each("ALE/{}-v5", _FEW, kwargs={"frameskip": 1}, wrappers=_STACKED),
            *_each("{}NoFrameskip-v4", "Pong", wrappers=_STACKED, slice=True),
            *_each("{}NoFrameskip-v4", " ".join(_FEW.split()[1:]), wrappers=_STACKED),
            *_each("{}NoFrameskip-v4", "Breakout MsPacman", wrappers=_LOST_LIFE),
            *_each("ALE/{}-v5", "Pong Breakout", kwargs={"obs_type": "ram"}),
            Env("ALE/Pong-v5", reseed=True),
        ),
    ),
    "minigrid": Family(
        "MiniGrid",
        "main",
        ("minigrid",),
        (
            *_each("MiniGrid-{}-v0", "Empty-Random-6x6 DoorKey-5x5 Dynamic-Obstacles-8x8 FourRooms", slice=True),
            *_each("MiniGrid-{}-v0", "Empty-8x8 DoorKey-8x8 LavaCrossingS9N2 SimpleCrossingS9N3 DistShift1"),
            *_each("MiniGrid-{}-v0", "Fetch-8x8-N3 GoToDoor-8x8 GoToObject-8x8-N2 KeyCorridorS3R3 LavaGapS7"),
            *_each("MiniGrid-{}-v0", "LockedRoom MemoryS17Random MultiRoom-N6 ObstructedMaze-2Dlhb Playground"),
            *_each("MiniGrid-{}-v0", "PutNear-8x8-N3 RedBlueDoors-8x8 UnlockPickup BlockedUnlockPickup"),
            *_each("BabyAI-{}-v0", "GoToRedBall GoToLocal PickupLoc BossLevel"),
            _minigrid("MiniGrid-DoorKey-5x5-v0", "ImgObsWrapper"),
            replace(_minigrid("MiniGrid-DoorKey-5x5-v0", "RGBImgPartialObsWrapper", "ImgObsWrapper"), slice=True),
            _minigrid("MiniGrid-Dynamic-Obstacles-8x8-v0", "RGBImgObsWrapper", "ImgObsWrapper"),
            _minigrid("MiniGrid-FourRooms-v0", "FullyObsWrapper"),
            _minigrid("MiniGrid-Fetch-8x8-N3-v0", "FlatObsWrapper"),
            _minigrid("MiniGrid-KeyCorridorS3R3-v0", "OneHotPartialObsWrapper"),
            _minigrid("MiniGrid-Empty-8x8-v0", "SymbolicObsWrapper"),
            _minigrid("MiniGrid-Empty-8x8-v0", "ActionBonus"),  # it counts visits across resets
            _minigrid("MiniGrid-Empty-8x8-v0", "PositionBonus"),
            _minigrid("MiniGrid-Empty-8x8-v0", "StochasticActionWrapper"),
        ),
    ),
    "highway": Family(
        "highway-env",
        "main",
        ("highway_env",),
        (
            *_each("{}-v0", "highway-fast", slice=True),
            *_each("{}-v0", "highway merge exit roundabout intersection two-way lane-keeping"),
            *_each("{}-v0", "parking racetrack racetrack-large racetrack-oval u-turn"),
            Env("intersection-v1"),
        ),
        steps=100,
    ),
    "vizdoom": Family(
        "ViZDoom",
        "main",
        ("vizdoom.gymnasium_wrapper",),
        (
            *_each("Vizdoom{}-v1", "Basic DeadlyCorridor DefendCenter DefendLine HealthGathering MyWayHome"),
            *_each("Vizdoom{}-v1", "PredictPosition TakeCover Deathmatch HealthGatheringSupreme"),
            Env("VizdoomBasic-MultiBinary-v1"),
        ),
    ),
    "robotics": Family(
        "Gymnasium-Robotics",
        "mujoco3",
        ("gymnasium_robotics",),
        (
            Env("FetchReach-v4", slice=True),  # drawing moves its target
            *_each("Fetch{}-v4", "Push Slide PickAndPlace"),
            Env("HandReach-v3", slice=True),  # as above
            Env("HandManipulateBlock-v1", slice=True),  # its controls survive resets
            *_each("HandManipulate{}-v1", "Egg Pen BlockRotateZ_ContinuousTouchSensors"),
            *_each("PointMaze_{}-v3", "UMaze Medium_Diverse_GR"),
            Env("AntMaze_UMaze-v5", slice=True),  # a nested env's generator
            Env("AntMaze_Medium_Diverse_GR-v5"),
            *_each("AdroitHand{}-v1", "Door Hammer Pen Relocate"),
            Env("FrankaKitchen-v1", steps=30),
        ),
        steps=100,
        gl=True,
    ),
    "dm_control": Family(
        "dm_control through Shimmy",
        "mujoco3",
        ("shimmy",),
        (
            Env("dm_control/cartpole-swingup-v0", slice=True),  # a RandomState
            *_each("dm_control/{}-v0", "acrobot-swingup ball_in_cup-catch cheetah-run dog-run"),
            *_each("dm_control/{}-v0", "finger-spin fish-swim hopper-hop humanoid-walk lqr-lqr_2_1"),
            *_each("dm_control/{}-v0", "manipulator-bring_ball pendulum-swingup point_mass-easy point_mass-hard"),
            *_each("dm_control/{}-v0", "quadruped-escape quadruped-fetch reacher-easy stacker-stack_2"),
            *_each("dm_control/{}-v0", "swimmer-swimmer6 walker-walk reach_site_features lift_brick_features"),
        ),
        steps=100,
        gl=True,
    ),
    "metaworld": Family(
        "Meta-World",
        "mujoco3",
        ("metaworld",),
        (
            *_metaworld(_METAWORLD, seed=5),
            Env("Meta-World/MT1", {"env_name": "reach-v3"}, slice=True),  # goals from the global generator
            *_metaworld(" ".join(_METAWORLD.split()[1:])),
            # their entry points take no render_mode
            Env("Meta-World/goal_observable", {"env_name": "reach-v3", "seed": 5}, renders=False),
            Env("Meta-World/goal_hidden", {"env_name": "push-v3", "seed": 5}, renders=False),
        ),
        steps=60,
        gl=True,
    ),
    "panda": Family(
        "panda-gym",
        "main",
        ("panda_gym",),
        (*_envs(_PANDA[0], slice=True), *_envs(*_PANDA[1:]), *_envs(*_PANDA[:2], reseed=True)),
        steps=20,  # drawn in software, 0.15 s a frame
    ),
    "crafter": Family("Crafter", "main", ("zoo_crafter",), _envs("zoo/Crafter-v1")),
    "miniworld": Family(
        "MiniWorld",
        "main",
        ("miniworld",),
        (
            *_each("MiniWorld-{}-v0", "Hallway OneRoom FourRooms MazeS3 PickupObjects Sidewalk Sign TMaze"),
            *_each("MiniWorld-{}-v0", "YMaze WallGap CollectHealth RoomObjects ThreeRooms PutNext"),
        ),
        steps=150,
        gl=True,
    ),
    "flappy": Family(
        "Flappy Bird",
        "pygame",
        ("flappy_bird_gymnasium",),
        (*_envs("FlappyBird-v0"), Env("FlappyBird-v0", {"use_lidar": False})),
    ),
    "pusht": Family(
        "PushT",
        "pygame",
        ("gym_pusht",),
        tuple(Env("gym_pusht/PushT-v0", {"obs_type": kind}) for kind in ("state", "environment_state_agent_pos")),
    ),
}

LONG_EPISODE = 1000
"""The episode that long runs replay: a full training with `Autoreset` comes before it."""

LONG: tuple[tuple[str, Env], ...] = (
    ("classic", Env("CartPole-v1")),
    ("classic", Env("Acrobot-v1")),
    ("toy", Env("Taxi-v4")),
    ("box2d", Env("LunarLander-v3")),
    ("box2d", Env("BipedalWalker-v3")),
    ("mujoco", Env("HalfCheetah-v5")),
    ("ale", Env("ALE/Pong-v5")),
    ("ale", Env("ALE/Breakout-v5")),
    ("ale", Env("BreakoutNoFrameskip-v4", wrappers=_STACKED)),
    ("minigrid", Env("MiniGrid-Dynamic-Obstacles-8x8-v0")),
    ("vizdoom", Env("VizdoomBasic-v1")),
    ("panda", Env("PandaPush-v3")),
    ("flappy", Env("FlappyBird-v0")),
)
"""Families' keys and their envs."""
